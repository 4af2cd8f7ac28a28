"""oneDNN's int8 operators: plain uint8 in, int8 weights packed once, uint8, int8 or float32 out.

Their bits are those of ``lowbit.functional.int8``; what they cannot fuse, its ``finish`` does.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lowbit.functional.int8.conv import ConvLayout
from lowbit.functional.int8.epilogue import finish, real_sums
from lowbit.kernels.int8._packed import Packed

# The weights' zero points, which the operators ask for and do not read.
ZERO = torch.zeros(1, dtype=torch.int32)


def linear(
    x: Tensor,
    x_scale: float,
    x_zero_point: int,
    packed: Packed,
    w_scales: Tensor,
    bias: Tensor | None,
    out_scale: float,
    out_zero_point: int,
    out_dtype: torch.dtype,
    relu: bool,
    residual: Tensor | None,
    residual_scale: float,
    residual_zero_point: int,
) -> Tensor:
    """``lowbit.functional.int8.linear`` with a zero point of 0 for the weight."""
    x, x_zero_point = _unsigned(x, x_zero_point)
    operator = torch.ops.onednn.qlinear_pointwise
    start = (x, x_scale, x_zero_point, packed.linear(), _float32(w_scales), ZERO)
    bias = None if bias is None else _float32(bias)
    out = output(out_scale, out_zero_point, out_dtype)
    unary = RELU if relu else NONE
    if residual is None:
        return operator.default(*start, bias, *out, *unary)
    if can_be_summed(residual, out_dtype):
        # The sum is written over the residual.
        added = residual.clone(memory_format=torch.contiguous_format)
        other = output(residual_scale, residual_zero_point, residual.dtype)[:2]
        return operator.binary(*start, added, bias, *out, *other, "sum", 1.0, *unary)
    y = operator.default(*start, bias, *_REAL, *NONE)
    return finish(
        *(y, out_scale, out_zero_point, out_dtype, relu),
        *(residual, residual_scale, residual_zero_point),
    )


def conv(
    x: Tensor,
    x_scale: float,
    x_zero_point: int,
    packed: Packed,
    w_scales: Tensor,
    bias: Tensor | None,
    layout: ConvLayout,
    out_scale: float,
    out_zero_point: int,
    out_dtype: torch.dtype,
    relu: bool,
    residual: Tensor | None = None,
    residual_scale: float = 1.0,
    residual_zero_point: int = 0,
) -> Tensor:
    """``lowbit.functional.int8.conv`` with a zero point of 0 for the weight; channels last."""
    x, x_zero_point = _unsigned(x, x_zero_point)
    windows = windows_of(layout)
    one_dimensional = x.ndim == 3
    if one_dimensional:  # done in two, where everything can be fused
        x = x.unsqueeze(2)
        residual = None if residual is None else residual.unsqueeze(2)
        windows = ([1, *windows[0]], [0, *windows[1]], [1, *windows[2]], layout.groups)
    alone = x.shape[1] == layout.groups
    if alone and x_zero_point != 0 and packed.channels != layout.groups:
        x = _beside_zeros(x)
    w_scales = _float32(w_scales)
    weight = packed.conv(x.shape, x_scale, x_zero_point, w_scales, windows)
    start = (x, x_scale, x_zero_point, weight, w_scales, ZERO)
    bias = None if bias is None else _float32(bias)
    out = output(out_scale, out_zero_point, out_dtype)
    unary = RELU if relu else NONE
    if x.ndim == 5 and alone:
        # Their kernel multiplies both scales first. Without scales its sums are the integers.
        plain = (x, 1.0, x_zero_point, weight, torch.ones(1), ZERO, None)
        sums = torch.ops.onednn.qconv_pointwise.default(*plain, *windows, *_REAL, *NONE)
        y = finish(
            real_sums(sums, x_scale, w_scales, bias, 1),
            *(out_scale, out_zero_point, out_dtype, relu),
            *(residual, residual_scale, residual_zero_point),
        )
    elif residual is None and (x.ndim == 4 or not relu):
        y = torch.ops.onednn.qconv_pointwise.default(*start, bias, *windows, *out, *unary)
    elif residual is not None and x.ndim == 4 and can_be_summed(residual, out_dtype):
        # The sum is written over the residual.
        added = channels_last_clone(residual)
        other = output(residual_scale, residual_zero_point, residual.dtype)[:2]
        y = torch.ops.onednn.qconv2d_pointwise.binary(
            *start, added, bias, *windows, *out, *other, "sum", 1.0, *unary
        )
    else:  # in three dimensions nothing can be fused
        real = torch.ops.onednn.qconv_pointwise.default(*start, bias, *windows, *_REAL, *NONE)
        y = finish(
            *(real, out_scale, out_zero_point, out_dtype, relu),
            *(residual, residual_scale, residual_zero_point),
        )
    return channels_last(y.squeeze(2) if one_dimensional else y)


def conv_transpose(
    x: Tensor,
    x_scale: float,
    x_zero_point: int,
    packed: Packed,
    w_scales: Tensor,
    bias: Tensor | None,
    layout: ConvLayout,
    out_scale: float,
    out_zero_point: int,
    out_dtype: torch.dtype,
    relu: bool,
) -> Tensor:
    """``lowbit.functional.int8.conv_transpose``: ``conv`` of x spread out, with zeros between."""
    ones, zeros = (1,) * (x.ndim - 2), (0,) * (x.ndim - 2)
    spread = spreadoutput(x, x_zero_point, packed.kernel, layout)
    if w_scales.numel() > 1:
        w_scales = w_scales.repeat(layout.groups)
    inner = ConvLayout(ones, zeros, layout.dilation, layout.groups)
    out = (out_scale, out_zero_point, out_dtype)
    return conv(spread, x_scale, x_zero_point, packed, w_scales, bias, inner, *out, relu)


def _beside_zeros(x: Tensor) -> Tensor:
    """x (n, c, ...) -> (n, 2 c, ...), a zero after each channel; weights get zeros there as well.

    oneDNN 3.13 and older take a wrong multiple of the zero point, for some sizes, where each of
    several output channels sees one input channel.
    """
    last = x.movedim(1, -1)
    wide = last.new_zeros(*last.shape, 2)
    wide[..., 0] = last
    return wide.flatten(-2).movedim(-1, 1)


def spreadoutput(x: Tensor, zero_point: int, kernel: tuple[int, ...], layout: ConvLayout) -> Tensor:
    """x with stride - 1 zero points between its values, and around it what the kernel needs."""
    sizes, source, target = [], [slice(None)] * 2, [slice(None)] * 2
    assert layout.output_padding is not None
    for n, k, s, p, d, extra in zip(
        *(x.shape[2:], kernel, layout.stride, layout.padding, layout.dilation),
        layout.output_padding,
        strict=True,
    ):
        before = d * (k - 1) - p  # negative where the padding is wider than the kernel
        size = (n - 1) * s + 1 + 2 * before + extra
        first, last = max(0, -(before // s)), min(n - 1, (size - 1 - before) // s)
        source.append(slice(first, last + 1))
        target.append(slice(before + first * s, max(before + last * s + 1, 0), s))
        sizes.append(size)
    y = x.new_full((x.shape[0], *sizes, x.shape[1]), zero_point).movedim(-1, 1)
    y[tuple(target)] = x[tuple(source)]
    return y


def windows_of(layout: ConvLayout) -> tuple[list[int], list[int], list[int], int]:
    """Stride, padding, dilation and groups, as the operators take them."""
    return list(layout.stride), list(layout.padding), list(layout.dilation), layout.groups


def channels_last(y: Tensor) -> Tensor:
    """y (n, c, ...) with the strides of a contiguous (n, ..., c)."""
    c, size = y.shape[1], y.shape[2:]
    strides, step = [1], max(c, 1)
    for length in reversed(size):
        strides.insert(1, step)
        step *= max(length, 1)
    expected = (step, *strides)
    if y.stride() == expected:
        return y
    # The stride of an axis of length 1 may be any; the fake kernels promise this one.
    same = y.movedim(1, -1).is_contiguous()
    return y.as_strided(y.shape, expected) if same else channels_last_clone(y)


# What the operators take for outputs in float32: scale, zero point, dtype.
_REAL = (1.0, 0, torch.float32)
# ... and for what follows the sums.
_Unary = tuple[str, list[float], str]
NONE: _Unary = ("none", [], "")
RELU: _Unary = ("relu", [], "")


def output(scale: float, zero_point: int, dtype: torch.dtype) -> tuple[float, int, torch.dtype]:
    return _REAL if dtype == torch.float32 else (scale, zero_point, dtype)


def can_be_summed(residual: Tensor, out_dtype: torch.dtype) -> bool:
    """Whether the operators add such a residual themselves."""
    return residual.dtype == out_dtype and out_dtype != torch.int8


def _unsigned(x: Tensor, zero_point: int) -> tuple[Tensor, int]:
    """int8 as the uint8 of the same numbers: of int8 activations there is no fast kernel."""
    if x.dtype == torch.int8:
        return x.view(torch.uint8) ^ 128, zero_point + 128
    return x, zero_point


def _float32(vector: Tensor) -> Tensor:
    if vector.dtype == torch.float32 and vector.is_contiguous():
        return vector
    return vector.to(torch.float32).contiguous()


def channels_last_clone(y: Tensor) -> Tensor:
    """A copy of y (n, c, ...), channels last in memory."""
    if y.ndim == 4 and y.is_contiguous(memory_format=torch.channels_last):
        return y.clone(memory_format=torch.channels_last)
    return y.movedim(1, -1).clone(memory_format=torch.contiguous_format).movedim(-1, 1)
