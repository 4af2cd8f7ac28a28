"""The operators with the arguments of their specification: scales and zero points as numbers too.

A number becomes a tensor in each call. Layers that hold a float32 tensor of scales, and None for
zero points of 0, save that.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lowbit.functional.int8.conv import ConvLayout
from lowbit.functional.int8.epilogue import check_scales
from lowbit.functional.int8.linear import check_shapes
from lowbit.kernels.int8._available import available
from lowbit.kernels.int8._ops import register
from lowbit.kernels.int8._plans import is_plain, keep, run
from lowbit.kernels.int8._tiles import tiles

_library = register()


def linear(
    x: Tensor,
    x_scale: float,
    x_zero_point: int,
    weight: Tensor,
    w_scales: float | Tensor,
    w_zero_points: int | Tensor | None = None,
    bias: Tensor | None = None,
    out_scale: float = 1.0,
    out_zero_point: int = 0,
    out_dtype: torch.dtype = torch.uint8,
    relu: bool = False,
    residual: Tensor | None = None,
    residual_scale: float = 1.0,
    residual_zero_point: int = 0,
) -> Tensor:
    """``lowbit.functional.int8.linear.linear``, the same bits, by the fastest kernel here."""
    arguments = (
        *(x, x_scale, x_zero_point, weight, *_vectors(weight, w_scales, w_zero_points), bias),
        *(out_scale, out_zero_point, out_dtype, relu),
        *(residual, residual_scale, residual_zero_point),
    )
    if torch.compiler.is_compiling():
        return torch.ops.lowbit.qlinear.default(*arguments)
    try:
        return torch.ops.lowbit.qlinear.default(*arguments, tiles(weight))
    except RuntimeError:
        # The words, and the kinds, of the specification's errors.
        check_shapes(x, weight, w_scales, w_zero_points, bias, out_dtype, residual)
        check_scales(x, x_scale, x_zero_point, *arguments[7:10], *arguments[11:])
        raise


def conv(
    x: Tensor,
    x_scale: float,
    x_zero_point: int,
    weight: Tensor,
    w_scales: float | Tensor,
    w_zero_points: int | Tensor | None = None,
    bias: Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
    out_scale: float = 1.0,
    out_zero_point: int = 0,
    out_dtype: torch.dtype = torch.uint8,
    relu: bool = False,
    residual: Tensor | None = None,
    residual_scale: float = 1.0,
    residual_zero_point: int = 0,
) -> Tensor:
    """``lowbit.functional.int8.conv.conv``, the same bits, by the fastest kernel here.

    The result is channels last in memory.
    """
    plain = w_zero_points is None and isinstance(w_scales, Tensor) and is_plain(x)
    key: tuple[Any, ...] = ()
    if plain:
        key = (
            *(x.shape, x.dtype, x_scale, x_zero_point, id(w_scales), id(bias)),
            *(stride, padding, dilation, groups, out_scale, out_zero_point, out_dtype, relu),
        )
        if residual is not None:
            key += (residual.shape, residual.dtype, residual_scale, residual_zero_point)
        y = run(x, weight, key, residual)
        if y is not None:
            return y
    y = torch.ops.lowbit.qconv.default(
        *(x, x_scale, x_zero_point, weight, *_vectors(weight, w_scales, w_zero_points), bias),
        *(_numbers(stride), _numbers(padding), _numbers(dilation), groups),
        *(out_scale, out_zero_point, out_dtype, relu),
        *(residual, residual_scale, residual_zero_point),
    )
    if plain and x.ndim == 4 and available():
        assert isinstance(w_scales, Tensor)
        layout = ConvLayout.of(2, stride, padding, dilation, groups)
        out = (out_scale, out_zero_point, out_dtype)
        keep(
            *(y, x, x_scale, x_zero_point, weight, w_scales, bias, layout, out, relu),
            *(residual, residual_scale, residual_zero_point, key),
        )
    return y


def conv_transpose(
    x: Tensor,
    x_scale: float,
    x_zero_point: int,
    weight: Tensor,
    w_scales: float | Tensor,
    w_zero_points: int | Tensor | None = None,
    bias: Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0,
    output_padding: int | Sequence[int] = 0,
    groups: int = 1,
    dilation: int | Sequence[int] = 1,
    out_scale: float = 1.0,
    out_zero_point: int = 0,
    out_dtype: torch.dtype = torch.uint8,
    relu: bool = False,
) -> Tensor:
    """``lowbit.functional.int8.conv.conv_transpose``, the same bits, by the fastest kernel here.

    The result is channels last in memory.
    """
    return torch.ops.lowbit.qconv_transpose.default(
        *(x, x_scale, x_zero_point, weight, *_vectors(weight, w_scales, w_zero_points), bias),
        *(_numbers(stride), _numbers(padding), _numbers(output_padding), groups),
        _numbers(dilation),
        *(out_scale, out_zero_point, out_dtype, relu),
    )


def _numbers(value: int | Sequence[int]) -> Sequence[int]:
    """One number for each spatial axis, or one for all."""
    if isinstance(value, str):
        raise ValueError(f"padding is a number or one for each spatial axis, not {value!r}")
    return (value,) if isinstance(value, int) else value


def _vectors(
    weight: Tensor, scales: float | Tensor, zero_points: int | Tensor | None
) -> tuple[Tensor, Tensor | None]:
    """Scales in a tensor; zero points too, or None where they are known to be 0."""
    if not isinstance(scales, Tensor):
        scales = torch.tensor([scales], dtype=torch.float32, device=weight.device)
    if not isinstance(zero_points, Tensor) and zero_points is not None:
        zero_points = (
            None if zero_points == 0 else torch.tensor([zero_points], device=weight.device)
        )
    return scales, zero_points
