"""Draw every registered quantizer from its own class: value and slope, one gallery image.

    python scripts/plot_quantizers.py
    python scripts/plot_quantizers.py --only sign approx_sign ede --output estimators.png

Each panel is the quantizer as a layer with one channel makes it, after one training batch (so
that learned scales have their first values), at x from -2 to 2. Methods that follow the epoch
are drawn at three quarters of the training, and those that give other values in training than in
evaluation as they are in training; those that mix elements are drawn before they do.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from lowbit import quantizers
from lowbit.cli._curves import curves
from lowbit.cli._plot import draw, gallery

__all__ = ["curves", "draw", "gallery", "main"]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("experiments/results/quantizers.png"),
        help="the image to write; its suffix says the format (default: %(default)s)",
    )
    parser.add_argument(
        "--only",
        nargs="+",
        metavar="NAME",
        default=list(quantizers.names()),
        help="draw these quantizers, in this order (default: all registered ones)",
    )
    arguments = parser.parse_args()
    try:
        for name in arguments.only:
            quantizers.get(name)
    except ValueError as error:
        parser.error(str(error))
    gallery(arguments.only, arguments.output)
    print(f"{len(arguments.only)} quantizers drawn in {arguments.output}")


if __name__ == "__main__":
    main()
