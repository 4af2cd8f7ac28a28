"""What ``tensor[index]`` does to one axis of a tensor."""

from __future__ import annotations

from types import EllipsisType
from typing import Any

from torch import Tensor


def index_channels(index: Any, axis: int, ndim: int) -> tuple[Any, int | None]:
    """(the part of ``index`` that picks along ``axis``, the position of the axis in the result).

    The position is None where one element of the axis was picked. Tensors and lists can index
    alone, in one place: with more of them the axes of the result depend on where they stand.

    >>> index_channels((0, ..., slice(1, 3)), 2, 3)
    (slice(1, 3, None), 1)
    """
    items = list(index) if isinstance(index, tuple) else [index]
    several = [item for item in items if isinstance(item, (Tensor, list))]
    if any(_is_truth(item) for item in items) or len(several) > 1:
        raise ValueError(
            "a per-channel QTensor takes integers, slices, None, ... and one list or vector of "
            f"integers as its index, not {index}; index_select() in steps, or dequantize() first"
        )
    if several and isinstance(several[0], Tensor) and several[0].dim() != 1:
        raise ValueError("a per-channel QTensor takes a vector of indices, not a matrix or a 0-d")
    if several and any(isinstance(item, int) for item in items):
        raise ValueError("a per-channel QTensor takes a vector of indices or integers, not both")
    used = sum(item is not None and not isinstance(item, EllipsisType) for item in items)
    rest: list[Any] = [slice(None)] * (ndim - used)
    where = next((i for i, item in enumerate(items) if isinstance(item, EllipsisType)), len(items))
    items[where : where + 1] = rest
    source = position = 0
    for item in items:
        if item is None:
            position += 1
            continue
        if source == axis:
            return item, None if isinstance(item, int) else position
        source += 1
        position += not isinstance(item, int)
    raise AssertionError(f"axis {axis} of {ndim} axes")


def _is_truth(item: Any) -> bool:
    """Whether an index is a mask: it would pick elements, and not whole channels, in general."""
    if isinstance(item, Tensor):
        return not (item.dtype.is_signed and not item.is_floating_point())
    if isinstance(item, list):
        return any(isinstance(part, (bool, list)) for part in item)
    return isinstance(item, bool)
