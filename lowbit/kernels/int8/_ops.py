"""The operators ``torch.ops.lowbit.qlinear, qconv, qconv_transpose``: what runs, and fakes.

Their weights are plain int8 tensors, so that a graph that holds them can be saved.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Sequence

import torch
from torch import Tensor

from lowbit.functional.int8 import conv as conv_specification
from lowbit.functional.int8 import linear as linear_specification
from lowbit.functional.int8.conv import ConvLayout
from lowbit.functional.int8.epilogue import check_scales
from lowbit.functional.int8.linear import check_shapes, output_shape
from lowbit.kernels.int8 import _onednn
from lowbit.kernels.int8._available import why_not
from lowbit.kernels.int8._packed import Packed, find

_OPERANDS = (
    "(Tensor x, float x_scale, int x_zero_point, Tensor weight, Tensor w_scales, "
    "Tensor? w_zero_points, Tensor? bias, "
)
_OUT = "float out_scale, int out_zero_point, ScalarType out_dtype, bool relu"
_RESIDUAL = ", Tensor? residual, float residual_scale, int residual_zero_point"
SCHEMAS = {
    "qlinear": _OPERANDS + _OUT + _RESIDUAL + ", Tensor? packed=None) -> Tensor",
    "qconv": _OPERANDS
    + "int[] stride, int[] padding, int[] dilation, int groups, "
    + _OUT
    + _RESIDUAL
    + ") -> Tensor",
    "qconv_transpose": _OPERANDS
    + "int[] stride, int[] padding, int[] output_padding, int groups, int[] dilation, "
    + _OUT
    + ") -> Tensor",
}


# Whether qlinear is lowbit's own, which needs no packed weights and no VNNI.
COMPILED = hasattr(torch.ops.lowbit, "qlinear")


def register() -> torch.library.Library:
    """Define the operators, their kernels and fakes; they live as long as what is returned.

    ``qlinear`` is compiled where there is a compiled library.
    """
    library = torch.library.Library("lowbit", "FRAGMENT")
    for name, kernel, fake in (
        ("qlinear", qlinear, fake_qlinear),
        ("qconv", qconv, fake_qconv),
        ("qconv_transpose", qconv_transpose, fake_qconv_transpose),
    ):
        if not (name == "qlinear" and COMPILED):
            library.define(name + SCHEMAS[name], tags=(torch.Tag.pt2_compliant_tag,))
            library.impl(name, kernel, "CPU")
        torch.library.register_fake(f"lowbit::{name}", fake, lib=library)
    return library


def qlinear(
    x: Tensor,
    x_scale: float,
    x_zero_point: int,
    weight: Tensor,
    w_scales: Tensor,
    w_zero_points: Tensor | None,
    bias: Tensor | None,
    out_scale: float,
    out_zero_point: int,
    out_dtype: torch.dtype,
    relu: bool,
    residual: Tensor | None,
    residual_scale: float,
    residual_zero_point: int,
    packed: Tensor | None = None,
) -> Tensor:
    """``lowbit.functional.int8.linear``, by oneDNN where it can."""
    check_shapes(x, weight, w_scales, w_zero_points, bias, out_dtype, residual)
    out = (out_scale, out_zero_point, out_dtype)
    added = (residual, residual_scale, residual_zero_point)
    check_scales(x, x_scale, x_zero_point, *out, *added)
    found = _packed(x, weight, w_zero_points)
    if found is None:
        weights = (weight, w_scales, w_zero_points, bias)
        y = linear_specification.linear(x, x_scale, x_zero_point, *weights, *out, relu, *added)
        return y.contiguous()
    return _onednn.linear(x, x_scale, x_zero_point, found, w_scales, bias, *out, relu, *added)


def qconv(
    x: Tensor,
    x_scale: float,
    x_zero_point: int,
    weight: Tensor,
    w_scales: Tensor,
    w_zero_points: Tensor | None,
    bias: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
    out_scale: float,
    out_zero_point: int,
    out_dtype: torch.dtype,
    relu: bool,
    residual: Tensor | None,
    residual_scale: float,
    residual_zero_point: int,
) -> Tensor:
    """``lowbit.functional.int8.conv``, by oneDNN where it can; channels last."""
    layout = _layout(x.ndim - 2, tuple(stride), tuple(padding), tuple(dilation), groups, None)
    layout.check(x, weight, w_scales, w_zero_points, bias, out_dtype, residual)
    out = (out_scale, out_zero_point, out_dtype)
    added = (residual, residual_scale, residual_zero_point)
    check_scales(x, x_scale, x_zero_point, *out, *added)
    packed = _packed(x, weight, w_zero_points)
    if packed is None:
        weights = (weight, w_scales, w_zero_points, bias)
        windows = (stride, padding, dilation)
        y = conv_specification.conv(
            x, x_scale, x_zero_point, *weights, *windows, groups, *out, relu, *added
        )
        return _onednn.channels_last(y)
    return _onednn.conv(
        x, x_scale, x_zero_point, packed, w_scales, bias, layout, *out, relu, *added
    )


def qconv_transpose(
    x: Tensor,
    x_scale: float,
    x_zero_point: int,
    weight: Tensor,
    w_scales: Tensor,
    w_zero_points: Tensor | None,
    bias: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    output_padding: Sequence[int],
    groups: int,
    dilation: Sequence[int],
    out_scale: float,
    out_zero_point: int,
    out_dtype: torch.dtype,
    relu: bool,
) -> Tensor:
    """``lowbit.functional.int8.conv_transpose``, by oneDNN where it can; channels last."""
    layout = _layout(
        *(x.ndim - 2, tuple(stride), tuple(padding), tuple(dilation), groups),
        tuple(output_padding),
    )
    layout.check(x, weight, w_scales, w_zero_points, bias, out_dtype, None)
    out = (out_scale, out_zero_point, out_dtype)
    check_scales(x, x_scale, x_zero_point, *out, None, 1.0, 0)
    packed = _packed(x, weight, w_zero_points, groups)
    if packed is None:
        weights = (weight, w_scales, w_zero_points, bias)
        windows = (stride, padding, output_padding)
        y = conv_specification.conv_transpose(
            x, x_scale, x_zero_point, *weights, *windows, groups, dilation, *out, relu
        )
        return _onednn.channels_last(y)
    return _onednn.conv_transpose(
        x, x_scale, x_zero_point, packed, w_scales, bias, layout, *out, relu
    )


def fake_qlinear(
    x: Tensor,
    x_scale: float,
    x_zero_point: int,
    weight: Tensor,
    w_scales: Tensor,
    w_zero_points: Tensor | None,
    bias: Tensor | None,
    out_scale: float,
    out_zero_point: int,
    out_dtype: torch.dtype,
    relu: bool,
    residual: Tensor | None,
    residual_scale: float,
    residual_zero_point: int,
    packed: Tensor | None = None,
) -> Tensor:
    check_shapes(x, weight, w_scales, w_zero_points, bias, out_dtype, residual)
    return x.new_empty(output_shape(x, weight), dtype=out_dtype)


def fake_qconv(
    x: Tensor,
    x_scale: float,
    x_zero_point: int,
    weight: Tensor,
    w_scales: Tensor,
    w_zero_points: Tensor | None,
    bias: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
    out_scale: float,
    out_zero_point: int,
    out_dtype: torch.dtype,
    relu: bool,
    residual: Tensor | None,
    residual_scale: float,
    residual_zero_point: int,
) -> Tensor:
    layout = ConvLayout.of(x.ndim - 2, stride, padding, dilation, groups)
    layout.check(x, weight, w_scales, w_zero_points, bias, out_dtype, residual)
    return _empty(x, layout.output_shape(x, weight), out_dtype)


def fake_qconv_transpose(
    x: Tensor,
    x_scale: float,
    x_zero_point: int,
    weight: Tensor,
    w_scales: Tensor,
    w_zero_points: Tensor | None,
    bias: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    output_padding: Sequence[int],
    groups: int,
    dilation: Sequence[int],
    out_scale: float,
    out_zero_point: int,
    out_dtype: torch.dtype,
    relu: bool,
) -> Tensor:
    layout = ConvLayout.of(x.ndim - 2, stride, padding, dilation, groups, output_padding)
    layout.check(x, weight, w_scales, w_zero_points, bias, out_dtype, None)
    return _empty(x, layout.output_shape(x, weight), out_dtype)


def _empty(x: Tensor, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """(n, o, ...), channels last in memory."""
    return x.new_empty((shape[0], *shape[2:], shape[1]), dtype=dtype).movedim(-1, 1)


def _packed(
    x: Tensor, weight: Tensor, w_zero_points: Tensor | None, transposed_groups: int = 0
) -> Packed | None:
    """The packed weight, where oneDNN computes the layer; None where the specification does."""
    reason = why_not()
    if reason is not None:
        _warn(reason)
        return None
    if x.numel() == 0 or weight.numel() == 0:
        return None
    if w_zero_points is not None and bool(w_zero_points.any()):
        return None
    packed = find(weight, transposed_groups)
    return packed if packed.fits else None


@functools.cache
def _warn(reason: str) -> None:
    warnings.warn(
        f"int8 layers run in plain torch, slower than float: {reason}", UserWarning, stacklevel=2
    )


@functools.lru_cache(maxsize=1024)
def _layout(
    dims: int,
    stride: tuple[int, ...],
    padding: tuple[int, ...],
    dilation: tuple[int, ...],
    groups: int,
    output_padding: tuple[int, ...] | None,
) -> ConvLayout:
    """One layout for each layer, not for each of its calls."""
    return ConvLayout.of(dims, stride, padding, dilation, groups, output_padding)
