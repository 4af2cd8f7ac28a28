"""``python -m lowbit``: look at quantizers and models; convert, time and use trained networks."""

import sys

from lowbit.cli import main

if __name__ == "__main__":
    sys.exit(main())
