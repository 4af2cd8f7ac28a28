"""The command line: ``python -m lowbit --help``."""

from lowbit.cli._main import main

__all__ = ["main"]
