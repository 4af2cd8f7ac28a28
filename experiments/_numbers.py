"""Checks of numbers that a configuration gives; NaN and infinity are none."""

from __future__ import annotations

import math
from typing import Any


def is_number(given: Any) -> bool:
    real = isinstance(given, (int, float)) and not isinstance(given, bool)
    return real and math.isfinite(given)


def is_whole(given: Any, least: int) -> bool:
    return isinstance(given, int) and not isinstance(given, bool) and given >= least


def at_least(name: str, given: Any, least: float) -> None:
    """``ValueError`` unless ``given`` is a number of at least ``least``."""
    if not (is_number(given) and given >= least):
        raise ValueError(f"{name} is a number of at least {least}; got {given!r}")


def above(name: str, given: Any, bound: float) -> None:
    """``ValueError`` unless ``given`` is a number above ``bound``."""
    if not (is_number(given) and given > bound):
        raise ValueError(f"{name} is a number above {bound}; got {given!r}")


def whole(name: str, given: Any, least: int) -> None:
    """``ValueError`` unless ``given`` is a whole number of at least ``least``."""
    if not is_whole(given, least):
        raise ValueError(f"{name} is a whole number of at least {least}; got {given!r}")
