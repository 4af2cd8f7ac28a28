"""Axes: statistics of each channel, and values laid along a channel axis."""

from __future__ import annotations

from torch import Tensor


def other_axes(x: Tensor, axis: int) -> tuple[int, ...]:
    """All axes of x but ``axis`` (which may be negative)."""
    keep = axis % x.ndim
    return tuple(i for i in range(x.ndim) if i != keep)


def over_channel(values: Tensor, x: Tensor, axis: int) -> Tensor:
    """View ``values``, of shape (channels,) or (1,), so that it broadcasts along x's ``axis``."""
    if x.ndim == 0:
        return values.view(())
    shape = [1] * x.ndim
    shape[axis] = -1
    return values.view(shape)


__all__ = ["other_axes", "over_channel"]
