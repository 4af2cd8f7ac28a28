"""Pooling of quantized integers; scale and zero point stay as they are.

Shapes as in ``torch.nn.functional``: (n, c, ...) or (c, ...), with one, two or three axes pooled.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lowbit.functional.int8.dtypes import limits
from lowbit.functional.int8.quantize import round_to

Sizes = int | tuple[int, ...] | list[int]


def max_pool(
    values: Tensor,
    axes: int,
    kernel_size: Sizes,
    stride: Sizes | None = None,
    padding: Sizes = 0,
    dilation: Sizes = 1,
    ceil_mode: bool = False,
) -> Tensor:
    """The greatest integer of each window over the last ``axes`` axes; padding is never it.

    Raises ValueError for padding of more than half of a kernel, windows that do not fit, and
    sizes below 1.
    """
    check_axes("max_pool", values, axes)
    kernel = each_axis(kernel_size, axes)
    strides = kernel if stride is None or stride == [] else each_axis(stride, axes)
    for axis, k, s, p, d in zip(
        range(-axes, 0),
        *(kernel, strides, each_axis(padding, axes), each_axis(dilation, axes)),
        strict=True,
    ):
        values = _max_along(values, axis, k, s, p, d, ceil_mode)
    return values


def _max_along(
    values: Tensor, axis: int, kernel: int, stride: int, padding: int, dilation: int, ceil: bool
) -> Tensor:
    """Windows along one axis: the greatest of ``kernel`` slices, of integers as they are.

    torch pools integers slowly, and not in every dtype, layout and size.
    """
    size, reach = values.shape[axis], dilation * (kernel - 1)
    count = windows(size, kernel, stride, padding, dilation, ceil)
    end = (count - 1) * stride + 1
    if padding or end + reach > size:
        sides = [0] * (2 * (-axis - 1)) + [padding, max(end + reach - size - padding, 0)]
        values = F.pad(values, sides, value=limits(values.dtype)[0])
    after: list[Any] = [slice(None)] * (-axis - 1)
    best = values[(..., slice(0, end, stride), *after)]
    for start in range(dilation, reach + 1, dilation):
        best = torch.maximum(best, values[(..., slice(start, start + end, stride), *after)])
    return best.clone() if kernel == 1 else best


def windows(
    size: int, kernel: int, stride: int, padding: int, dilation: int, ceil_mode: bool
) -> int:
    """How many windows an axis has; ValueError for sizes that ``max_pool`` does not take."""
    if kernel < 1 or stride < 1 or dilation < 1 or padding < 0:
        raise ValueError(
            f"kernel {kernel}, stride {stride} and dilation {dilation} must be at least 1, and "
            f"padding {padding} at least 0"
        )
    if 2 * padding > kernel:
        raise ValueError(f"padding {padding} is more than half of the kernel, {kernel}")
    reach = dilation * (kernel - 1)
    room = size + 2 * padding - reach - 1
    count = (-(-room // stride) if ceil_mode else room // stride) + 1
    if ceil_mode and (count - 1) * stride >= size + padding:
        count -= 1  # the last window would begin in the padding
    if count < 1:
        raise ValueError(f"a window of {reach + 1} does not fit {size} with padding {padding}")
    return count


def avg_pool(
    values: Tensor,
    zero_point: int,
    axes: int,
    kernel_size: Sizes,
    stride: Sizes | None = None,
    padding: Sizes = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Tensor:
    """The integer of each window's mean: round(mean(values - zero_point)) + zero_point.

    Half to even. Padding is a real 0. ``divisor_override``, for two and three axes, replaces
    the number of elements; ValueError where it is 0.
    """
    if divisor_override == 0:
        raise ValueError("divisor_override must not be 0; None divides by the window's elements")
    if axes == 1 and divisor_override is not None:
        raise ValueError("avg_pool1d has no divisor_override")
    check_axes("avg_pool", values, axes)
    pool: Callable[..., Tensor] = (F.avg_pool1d, F.avg_pool2d, F.avg_pool3d)[axes - 1]
    divisor = () if axes == 1 else (divisor_override,)
    real = values.double() - zero_point
    mean = pool(real, kernel_size, stride, padding, ceil_mode, count_include_pad, *divisor)
    return round_to(mean, zero_point, values.dtype)


def adaptive_avg_pool(
    values: Tensor,
    zero_point: int,
    axes: int,
    output_size: int | tuple[int | None, ...] | list[int | None] | None,
) -> Tensor:
    """``avg_pool`` with windows that divide the last ``axes`` axes into ``output_size`` parts."""
    check_axes("adaptive_avg_pool", values, axes)
    pool: Callable[..., Tensor] = (
        F.adaptive_avg_pool1d,
        F.adaptive_avg_pool2d,
        F.adaptive_avg_pool3d,
    )[axes - 1]
    mean = pool(values.double() - zero_point, output_size)
    return round_to(mean, zero_point, values.dtype)


def each_axis(sizes: Sizes, axes: int) -> list[int]:
    """One size for each axis: a number is that of every axis."""
    if isinstance(sizes, int):
        return [sizes] * axes
    if len(sizes) not in (1, axes):
        raise ValueError(f"{tuple(sizes)} has {len(sizes)} sizes; {axes} axes take 1 or {axes}")
    return list(sizes) * (axes // len(sizes))


def check_axes(name: str, values: Tensor, axes: int) -> None:
    """ValueError unless values are (n, c, ...) or (c, ...) with as many axes of places."""
    if values.dim() not in (axes + 1, axes + 2):
        raise ValueError(
            f"{name} over {axes} axes of a tensor of shape {tuple(values.shape)}: "
            f"it must have {axes + 1} or {axes + 2} axes"
        )
