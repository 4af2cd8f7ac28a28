"""What stands between int8 layers: quantizing, arithmetic and pooling, compiled where they can be.

``torch.ops.lowbit.int8_*`` computes tensors of uint8 and int8 on the processor. What they do not
take, and every tensor where lowbit has no compiled library, goes to ``lowbit.functional.int8``,
which says what is computed and raises what is raised here.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import torch
from torch import Tensor

from lowbit.functional.int8 import activations, arithmetic, plain_dtype, pool
from lowbit.functional.int8.quantize import check_qparams, check_real
from lowbit.functional.int8.quantize import dequantize as _dequantize
from lowbit.functional.int8.quantize import quantize as _quantize
from lowbit.kernels.int8 import _glue_ops

_COMPILED = hasattr(torch.ops.lowbit, "int8_quantize")
_CLAMPS = hasattr(torch.ops.lowbit, "int8_clamp")
_library = _glue_ops.register()
_CODES = (torch.uint8, torch.int8)
_REALS = (torch.float32, torch.float16, torch.bfloat16)
# What a window of means may hold: its quotient is exact where it is a tie (int8_loops.h).
_LARGEST_WINDOW = 2**15

Sizes = pool.Sizes


def _takes(values: Tensor) -> bool:
    """Whether the compiled operators compute these integers."""
    return _COMPILED and values.dtype in _CODES and values.is_cpu and values.ndim <= 16


def quantize(
    x: Tensor,
    scale: float,
    zero_point: int,
    dtype: torch.dtype | str,
    channels_last: bool = False,
) -> Tensor:
    """``lowbit.functional.int8.quantize`` with one scale, in the layout of x.

    ``channels_last``: x (n, c, h, w) comes out channels last in memory, whatever it is.
    """
    if not isinstance(dtype, torch.dtype):
        dtype = plain_dtype(dtype)
    if not (_COMPILED and dtype in _CODES and x.is_cpu and x.dtype in _REALS and x.ndim <= 16):
        values = _quantize(x, scale, zero_point, dtype)
        return values.contiguous(memory_format=torch.channels_last) if channels_last else values
    if x.dtype != torch.float32:
        check_real(x)
        x = x.float()
    check_qparams(scale, zero_point, dtype)
    return torch.ops.lowbit.int8_quantize.default(x, scale, zero_point, dtype, channels_last)


def dequantize(values: Tensor, scale: float, zero_point: int) -> Tensor:
    """``lowbit.functional.int8.dequantize`` with one scale, in the layout of ``values``."""
    if not _takes(values):
        return _dequantize(values, scale, zero_point)
    return torch.ops.lowbit.int8_dequantize.default(values, scale, zero_point)


def add(
    a: Tensor,
    a_scale: float,
    a_zero_point: int,
    b: Tensor,
    b_scale: float,
    b_zero_point: int,
    scale: float,
    zero_point: int,
    relu: bool = False,
) -> Tensor:
    """``lowbit.functional.int8.arithmetic.add``, or ``add_relu``."""
    if not (_takes(a) and _takes(b) and a.dtype == b.dtype):
        function = arithmetic.add_relu if relu else arithmetic.add
        return function(a, a_scale, a_zero_point, b, b_scale, b_zero_point, scale, zero_point)
    check_qparams(scale, zero_point, a.dtype)
    return torch.ops.lowbit.int8_add.default(
        a, a_scale, a_zero_point, b, b_scale, b_zero_point, scale, zero_point, relu
    )


def mul(
    a: Tensor,
    a_scale: float,
    a_zero_point: int,
    b: Tensor,
    b_scale: float,
    b_zero_point: int,
    scale: float,
    zero_point: int,
    relu: bool = False,
) -> Tensor:
    """``lowbit.functional.int8.arithmetic.mul``, or ``mul_relu``."""
    if not (_takes(a) and _takes(b) and a.dtype == b.dtype):
        function = arithmetic.mul_relu if relu else arithmetic.mul
        return function(a, a_scale, a_zero_point, b, b_scale, b_zero_point, scale, zero_point)
    check_qparams(scale, zero_point, a.dtype)
    return torch.ops.lowbit.int8_mul.default(
        a, a_scale, a_zero_point, b, b_scale, b_zero_point, scale, zero_point, relu
    )


def cat(
    tensors: Sequence[Tensor],
    scales: Sequence[float],
    zero_points: Sequence[int],
    scale: float,
    zero_point: int,
    dim: int = 0,
) -> Tensor:
    """``lowbit.functional.int8.arithmetic.cat``, in the layout of the first tensor."""
    fit = len({(t.dtype, t.ndim) for t in tensors}) == 1 and tensors[0].ndim > 0
    if not (fit and all(map(_takes, tensors))):
        return arithmetic.cat(tensors, scales, zero_points, scale, zero_point, dim)
    check_qparams(scale, zero_point, tensors[0].dtype)
    return torch.ops.lowbit.int8_cat.default(
        list(tensors), list(scales), list(zero_points), scale, zero_point, dim
    )


def relu(values: Tensor, zero_point: int) -> Tensor:
    """``lowbit.functional.int8.activations.relu``."""
    if not _CLAMPS or not _takes(values):
        return activations.relu(values, zero_point)
    return torch.ops.lowbit.int8_clamp.default(values, zero_point, 255)


def clamp(
    values: Tensor,
    scale: float,
    zero_point: int,
    low: float | None = None,
    high: float | None = None,
) -> Tensor:
    """``lowbit.functional.int8.activations.clamp``, to real numbers."""
    if not _CLAMPS or not _takes(values) or torch.compiler.is_compiling():
        return activations.clamp(values, scale, zero_point, low, high)
    least = -128 if low is None else _integer_of(low, scale, zero_point, values.dtype)
    greatest = 255 if high is None else _integer_of(high, scale, zero_point, values.dtype)
    # As torch does it where the limits are not in order.
    return torch.ops.lowbit.int8_clamp.default(values, min(least, greatest), greatest)


@functools.lru_cache(maxsize=4096)
def _integer_of(real: float, scale: float, zero_point: int, dtype: torch.dtype) -> int:
    return activations.integer_of(real, scale, zero_point, dtype)


def max_pool2d(
    values: Tensor,
    kernel_size: Sizes,
    stride: Sizes | None = None,
    padding: Sizes = 0,
    dilation: Sizes = 1,
    ceil_mode: bool = False,
) -> Tensor:
    """``lowbit.functional.int8.pool.max_pool`` over two axes; channels last in memory."""
    if values.ndim not in (3, 4) or not _takes(values):
        return pool.max_pool(values, 2, kernel_size, stride, padding, dilation, ceil_mode)
    kernel, step, pad, gaps = _windows(kernel_size, stride, padding, dilation)
    for n, k, s, p, d in zip(values.shape[-2:], kernel, step, pad, gaps, strict=True):
        pool.windows(n, k, s, p, d, ceil_mode)  # its errors
    x = values if values.ndim == 4 else values.unsqueeze(0)
    y = torch.ops.lowbit.int8_max_pool2d.default(x, kernel, step, pad, gaps, ceil_mode)
    return y if values.ndim == 4 else y.squeeze(0)


def avg_pool2d(
    values: Tensor,
    zero_point: int,
    kernel_size: Sizes,
    stride: Sizes | None = None,
    padding: Sizes = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Tensor:
    """``lowbit.functional.int8.pool.avg_pool`` over two axes; channels last in memory."""
    small = divisor_override is None or 0 < divisor_override <= _LARGEST_WINDOW
    if small and values.ndim in (3, 4) and _takes(values):
        kernel, step, pad, _ = _windows(kernel_size, stride, padding, 1)
        # torch's own words for what is wrong with sizes.
        fits = all(
            k > 0 and s > 0 and 0 <= 2 * p <= k and n + 2 * p >= k
            for n, k, s, p in zip(values.shape[-2:], kernel, step, pad, strict=True)
        )
        if fits and kernel[0] * kernel[1] <= _LARGEST_WINDOW:
            x = values if values.ndim == 4 else values.unsqueeze(0)
            y = torch.ops.lowbit.int8_avg_pool2d.default(
                x, zero_point, kernel, step, pad, ceil_mode, count_include_pad, divisor_override
            )
            return y if values.ndim == 4 else y.squeeze(0)
    sizes = (kernel_size, stride, padding)
    return pool.avg_pool(
        values, zero_point, 2, *sizes, ceil_mode, count_include_pad, divisor_override
    )


def adaptive_avg_pool2d(
    values: Tensor,
    zero_point: int,
    output_size: int | tuple[int | None, ...] | list[int | None] | None,
) -> Tensor:
    """``lowbit.functional.int8.pool.adaptive_avg_pool`` over two axes; channels last in memory."""
    size = output_size if isinstance(output_size, (tuple, list)) else (output_size, output_size)
    if values.ndim == 4 and len(size) == 2 and _takes(values):
        h, w = values.shape[2:]
        places = [n if s is None else s for s, n in zip(size, (h, w), strict=True)]
        small = min(places) > 0 and min(h, w) > 0
        if small and (h // places[0] + 2) * (w // places[1] + 2) <= _LARGEST_WINDOW:
            return torch.ops.lowbit.int8_adaptive_avg_pool2d.default(values, zero_point, places)
    return pool.adaptive_avg_pool(values, zero_point, 2, output_size)


def _windows(
    kernel: Sizes, stride: Sizes | None, padding: Sizes, dilation: Sizes
) -> tuple[list[int], list[int], list[int], list[int]]:
    """Two numbers of each; the stride is the kernel where there is none."""
    sizes = pool.each_axis(kernel, 2)
    steps = sizes if stride is None or stride == [] else pool.each_axis(stride, 2)
    return sizes, steps, pool.each_axis(padding, 2), pool.each_axis(dilation, 2)
