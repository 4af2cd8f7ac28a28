"""Where the channels of a per-channel tensor are after its shape has changed."""

from __future__ import annotations

import math
from collections.abc import Sequence


def axis_after_reshape(axis: int, old: Sequence[int], new: Sequence[int]) -> int | None:
    """The axis of shape ``new`` that runs through the channels of ``old[axis]``, if there is one.

    It has their number, and as many elements before it.

    >>> axis_after_reshape(1, (2, 3, 4), (2, 1, 3, 2, 2))
    2
    >>> axis_after_reshape(1, (2, 3, 4), (6, 4)) is None
    True
    """
    before = math.prod(old[:axis])
    for position, size in enumerate(new):
        if size == old[axis] and math.prod(new[:position]) == before:
            return position
    return None


def normal_axis(axis: int, ndim: int) -> int:
    """0 .. ndim - 1 for an axis that may count from the end; IndexError outside."""
    if not -ndim <= axis < max(ndim, 1):
        raise IndexError(f"axis {axis} is outside the {ndim} axes of the tensor")
    return axis % ndim if ndim else 0
