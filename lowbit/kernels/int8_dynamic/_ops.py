"""The operators: typed calls, what they run, and their shapes for tracing."""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from lowbit.functional.int8 import dynamic, recurrent
from lowbit.functional.int8.conv import ConvLayout
from lowbit.functional.int8.dynamic import Matrix
from lowbit.kernels import int8
from lowbit.kernels.int8._tiles import tiles
from lowbit.kernels.int8_dynamic import _packed, _products
from lowbit.kernels.int8_dynamic._available import int_mm_available, ready

_MATRIX = "Tensor {0}, Tensor? {0}_scale, Tensor? {0}_zero_point, Tensor? {0}_bias"
_SCHEMAS = {
    "qlinear_dynamic": f"Tensor x, {_MATRIX.format('weight')}, bool reduce_range, bool relu, "
    "Tensor? packed=None",
    "qconv_dynamic": (
        f"Tensor x, {_MATRIX.format('weight')}, int[] stride, int[] padding, int[] dilation, "
        "int groups, int[]? output_padding, bool reduce_range"
    ),
    "qrecurrent_dynamic": (
        f"Tensor x, Tensor? batch_sizes, Tensor[] state, {_MATRIX.format('ih')}, "
        f"{_MATRIX.format('hh')}, str gates, bool reverse, bool reduce_range, "
        "Tensor? ih_packed=None, Tensor? hh_packed=None"
    ),
}


def linear(x: Tensor, weight: Matrix, reduce_range: bool = True, relu: bool = False) -> Tensor:
    """``lowbit.functional.int8.dynamic.linear``."""
    if weight.scale is None:  # float16, of which nothing is quantized
        return dynamic.linear(x, weight, reduce_range, relu)
    if x.dtype != torch.float32:
        return linear(x.float(), weight, reduce_range, relu).to(x.dtype)
    return torch.ops.lowbit.qlinear_dynamic.default(
        x, *weight, reduce_range, relu, tiles(weight.values)
    )


def conv(x: Tensor, weight: Matrix, layout: ConvLayout, reduce_range: bool = True) -> Tensor:
    """``lowbit.functional.int8.dynamic.conv``, or ``conv_transpose`` of a transposed layout."""
    windows = (layout.stride, layout.padding, layout.dilation, layout.groups)
    return torch.ops.lowbit.qconv_dynamic.default(
        x, *weight, *windows, layout.output_padding, reduce_range
    )


def layer(
    gates: str,
    x: Tensor,
    batch_sizes: Tensor | None,
    state: tuple[Tensor, ...],
    ih: Matrix,
    hh: Matrix,
    reverse: bool = False,
    reduce_range: bool = True,
) -> tuple[Tensor, ...]:
    """``lowbit.functional.int8.recurrent.layer``; x and states float32."""
    if ih.scale is None or hh.scale is None:
        run = functools.partial(linear, reduce_range=reduce_range)
        return recurrent.layer(gates, x, batch_sizes, state, ih, hh, reverse, run)
    return tuple(
        torch.ops.lowbit.qrecurrent_dynamic.default(
            *(x, batch_sizes, state, *ih, *hh, gates, reverse, reduce_range),
            *(tiles(ih.values), tiles(hh.values)),
        )
    )


def project(x: Tensor, weight: Matrix, reduce_range: bool = True, relu: bool = False) -> Tensor:
    """``lowbit.functional.int8.dynamic.linear``, without an operator around it."""
    packed = _packed.find(weight) if ready() else None
    if packed is None or x.numel() == 0:
        return dynamic.linear(x, weight, reduce_range, relu)
    k, n = packed.transposed.shape
    rows = x.reshape(-1, k).float()
    quantized = _products.quantized(rows, reduce_range)
    if quantized is None:
        return x.new_full((*x.shape[:-1], n), torch.nan)
    y = _products.multiply(*quantized, packed, weight.bias, relu, int_mm_available())
    return y.view(*x.shape[:-1], n).to(x.dtype)


def _linear(
    x: Tensor,
    weight: Tensor,
    scale: Tensor | None,
    zero_point: Tensor | None,
    bias: Tensor | None,
    reduce_range: bool,
    relu: bool,
    packed: Tensor | None = None,
) -> Tensor:
    return project(x, Matrix(weight, scale, zero_point, bias), reduce_range, relu)


def _linear_shape(x: Tensor, weight: Tensor, *others: object) -> Tensor:
    return x.new_empty((*x.shape[:-1], weight.shape[0]))


def _conv(
    x: Tensor,
    weight: Tensor,
    scale: Tensor | None,
    zero_point: Tensor | None,
    bias: Tensor | None,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    groups: int,
    output_padding: list[int] | None,
    reduce_range: bool,
) -> Tensor:
    found = _products.quantized(x.float(), reduce_range) if x.numel() else None
    codes, x_scale, x_zero_point = found or (torch.zeros_like(x, dtype=torch.uint8), 1.0, 0)
    weights = Matrix(weight, scale, zero_point, bias).integers()
    if output_padding is None:
        y = int8.conv(
            *(codes, x_scale, x_zero_point, *weights, stride, padding, dilation, groups),
            out_dtype=torch.float32,
        )
    else:
        y = int8.conv_transpose(
            *(codes, x_scale, x_zero_point, *weights),
            *(stride, padding, output_padding, groups, dilation),
            out_dtype=torch.float32,
        )
    return (y if found or not x.numel() else y.fill_(torch.nan)).to(x.dtype)


def _conv_shape(
    x: Tensor,
    weight: Tensor,
    scale: Tensor | None,
    zero_point: Tensor | None,
    bias: Tensor | None,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    groups: int,
    output_padding: list[int] | None,
    reduce_range: bool,
) -> Tensor:
    # As those operators lay it out in memory.
    extra = None if output_padding is None else tuple(output_padding)
    layout = ConvLayout(tuple(stride), tuple(padding), tuple(dilation), groups, extra)
    n, channels, *size = layout.output_shape(x, weight)
    return x.new_empty((n, *size, channels)).movedim(-1, 1)


def _recurrent(
    x: Tensor,
    batch_sizes: Tensor | None,
    state: list[Tensor],
    ih: Tensor,
    ih_scale: Tensor | None,
    ih_zero_point: Tensor | None,
    ih_bias: Tensor | None,
    hh: Tensor,
    hh_scale: Tensor | None,
    hh_zero_point: Tensor | None,
    hh_bias: Tensor | None,
    gates: str,
    reverse: bool,
    reduce_range: bool,
    ih_packed: Tensor | None = None,
    hh_packed: Tensor | None = None,
) -> list[Tensor]:
    y = recurrent.layer(
        gates,
        x,
        batch_sizes,
        tuple(state),
        Matrix(ih, ih_scale, ih_zero_point, ih_bias),
        Matrix(hh, hh_scale, hh_zero_point, hh_bias),
        reverse,
        functools.partial(project, reduce_range=reduce_range),
    )
    return list(y)


def _recurrent_shape(
    x: Tensor, batch_sizes: Tensor | None, state: list[Tensor], *others: object
) -> list[Tensor]:
    y = x.new_empty((*x.shape[:-1], state[0].shape[-1]))
    return [y, *(x.new_empty(part.shape) for part in state)]


_library = torch.library.Library("lowbit", "FRAGMENT")
for _name, _run, _shape in (
    ("qlinear_dynamic", _linear, _linear_shape),
    ("qconv_dynamic", _conv, _conv_shape),
    ("qrecurrent_dynamic", _recurrent, _recurrent_shape),
):
    _several = "[]" if _name == "qrecurrent_dynamic" else ""
    # Where lowbit is compiled, two of them are, for the processor.
    if not hasattr(torch.ops.lowbit, _name):
        _library.define(
            f"{_name}({_SCHEMAS[_name]}) -> Tensor{_several}", tags=(torch.Tag.pt2_compliant_tag,)
        )
    _library.impl(_name, _run, "CompositeExplicitAutograd")
    torch.library.register_fake(f"lowbit::{_name}", _shape, lib=_library)
