"""Handlers of int8 arithmetic: QuantizeLinear and DequantizeLinear around the real operator.

onnxruntime and others make one integer kernel of such a group. Integers are clamped by Clip after
QuantizeLinear where a ReLU or fewer than 8 bits narrow them; at the end of their dtype
QuantizeLinear does so itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from lowbit.export._operators import (
    adaptive_mean,
    affine,
    averaged,
    check_bags,
    convolved,
    layer_normalized,
    max_pooled,
    reduced,
    resized,
    transposed,
)
from lowbit.export._recorder import Handler, Recorder, Target, registering
from lowbit.functional import int8
from lowbit.functional.int8 import (
    activations,
    arithmetic,
    embedding,
    limits,
    norm,
    plain_dtype,
    pool,
    resize,
)
from lowbit.kernels import int8 as kernels

INT32_MAX = 2**31 - 1

HANDLERS: dict[str, Handler] = {}
FUNCTIONS: dict[str, Target] = {}
handles = registering(HANDLERS, FUNCTIONS)


# Into integers, and out of them.


@handles((kernels, "quantize"))
def quantize_with_one_scale(
    g: Recorder,
    y: Tensor,
    x: Any,
    scale: float,
    zero_point: int,
    dtype: Any,
    channels_last: bool = False,
) -> str:
    """clamp(round(x / scale) + zero_point)."""
    return quantized(g, x, scale, zero_point, y.dtype)


@handles((kernels, "dequantize"))
def dequantize_with_one_scale(
    g: Recorder, y: Tensor, values: Tensor, scale: float, zero_point: int
) -> str:
    """(values - zero_point) * scale."""
    return real(g, values, scale, zero_point)


@handles((int8, "quantize"))
def quantize(
    g: Recorder, y: Tensor, x: Any, scale: Any, zero_point: Any, dtype: Any, axis: int | None = None
) -> str:
    """clamp(round(x / scale) + zero_point); ``quantized`` of numbers that a call has."""
    if axis is None:
        return quantized(g, x, float(scale), int(zero_point), plain_dtype(dtype))
    if y.dtype == torch.int32 or torch.as_tensor(zero_point).is_floating_point():
        raise NotImplementedError("QuantizeLinear has uint8 and int8 with integer zero points")
    vectors = (scale.float(), torch.as_tensor(zero_point).to(y.dtype))
    return g.node("QuantizeLinear", x, *vectors, axis=axis % y.ndim)


@handles((int8, "dequantize"))
def dequantize(
    g: Recorder,
    y: Tensor,
    values: Tensor,
    scale: Any,
    zero_point: Any,
    axis: int | None = None,
) -> str:
    """(values - zero_point) * scale."""
    if axis is None:
        return real(g, values, float(scale), int(zero_point))
    if torch.as_tensor(zero_point).is_floating_point():
        raise NotImplementedError("DequantizeLinear has no zero points in floating point")
    vectors = (scale.float(), torch.as_tensor(zero_point).to(values.dtype))
    return g.node("DequantizeLinear", values, *vectors, axis=axis % y.ndim)


def quantized(
    g: Recorder, x: Any, scale: float, zero_point: int, dtype: torch.dtype, relu: bool = False
) -> str:
    """The integers of real numbers, none below the zero point after a ReLU."""
    if dtype not in (torch.uint8, torch.int8):
        raise NotImplementedError(f"QuantizeLinear has uint8 and int8, not {dtype}")
    numbers = (g.number(scale), g.number(zero_point, dtype))
    q: str = g.node("QuantizeLinear", x, *numbers)
    low, high = limits(dtype)
    if relu and zero_point > low:
        q = g.node("Clip", q, g.number(zero_point, dtype), g.number(high, dtype))
    return q


def real(g: Recorder, values: Any, scale: float, zero_point: int, dtype: Any = None) -> str:
    """The real numbers of integers with one scale."""
    dtype = values.dtype if dtype is None else dtype
    return g.node("DequantizeLinear", values, g.number(scale), g.number(zero_point, dtype))


@handles("lowbit::int8_clamp")
def clamp(g: Recorder, y: Tensor, values: Tensor, low: int, high: int) -> str:
    """Integers between two, where their dtype reaches beyond."""
    least, greatest = limits(values.dtype)
    ends = [g.number(end, values.dtype) if least < end < greatest else None for end in (low, high)]
    return g.node("Clip", values, *ends) if any(ends) else g.name(values)


# Linear layers and convolutions.


def real_weight(g: Recorder, weight: Tensor, scales: Tensor, zero_points: Any, axis: int) -> str:
    """An int8 weight as real numbers, with one scale or one for each channel along ``axis``."""
    zeros = torch.zeros(scales.shape, dtype=torch.int8)
    zero_points = zeros if zero_points is None else zero_points.to(torch.int8)
    zero_points = zero_points.expand(scales.shape) if zero_points.numel() == 1 else zero_points
    if scales.numel() == 1:
        pair = (g.number(float(scales)), g.number(int(zero_points), torch.int8))
        return g.node("DequantizeLinear", weight, *pair)
    pair = (g.constant_of(scales.float(), "scales"), g.constant_of(zero_points, "zero_points"))
    return g.node("DequantizeLinear", weight, *pair, axis=axis)


def integer_bias(
    x_scale: float, weight: Tensor, scales: Tensor, zero_points: Tensor | None, bias: Tensor
) -> tuple[Tensor, Tensor, Tensor] | None:
    """(bias in int32, its scales, the weight's scales), or None where int32 does not hold it.

    Its scale is x_scale times the weight's, so that kernels add it to their sums: it is off by
    half of that at most. A channel without weights (all 0, as after an observer that saw zeros)
    may have any scale, and gets one that is great enough.
    """
    scales = scales.float()
    steps = scales * x_scale
    integers = (bias.double() / steps).round()
    over = integers.abs() > INT32_MAX
    if bool(over.any()):
        unused = (weight == 0).flatten(1).all(1)
        if zero_points is not None or scales.numel() == 1 or bool((over & ~unused).any()):
            return None
        scales = torch.where(over, bias.abs() / (x_scale * 2**24), scales)
        steps = scales * x_scale
        integers = (bias.double() / steps).round()
    return integers.to(torch.int32), steps, scales


def weight_and_bias(
    g: Recorder, x_scale: float, weight: Tensor, scales: Tensor, zero_points: Any, bias: Any
) -> tuple[str, str | None, Tensor | None]:
    """(the real weight, the real bias, a bias to add after the operator instead)."""
    whole = None if bias is None else integer_bias(x_scale, weight, scales, zero_points, bias)
    if whole is None:
        return real_weight(g, weight, scales, zero_points, 0), None, bias
    integers, steps, scales = whole
    name = g.constant_of(integers, "bias")
    if steps.numel() == 1:
        pair = (g.number(float(steps)), g.number(0, torch.int32))
        made = g.node("DequantizeLinear", name, *pair)
    else:
        zeros = g.constant_of(torch.zeros_like(integers), "zero_points")
        made = g.node("DequantizeLinear", name, g.constant_of(steps, "scales"), zeros, axis=0)
    return real_weight(g, weight, scales, zero_points, 0), made, None


def finished(
    g: Recorder,
    y: str,
    scale: float,
    zero_point: int,
    dtype: torch.dtype,
    relu: bool,
    residual: Tensor | None = None,
    residual_scale: float = 1.0,
    residual_zero_point: int = 0,
) -> str:
    """Residual, ReLU and rounding after a linear layer or a convolution."""
    if residual is not None:
        added: Any = residual
        if residual.dtype != torch.float32:
            added = real(g, residual, residual_scale, residual_zero_point)
            if dtype != torch.float32 and not g.fused_adds:
                pair = (residual_scale, residual_zero_point, residual.dtype)
                y = rounded_before_addition(g, y, scale, zero_point, dtype, relu, *pair)
        y = g.node("Add", y, added)
    if dtype == torch.float32:
        return g.node("Relu", y) if relu else y
    return quantized(g, y, scale, zero_point, dtype, relu)


def rounded_before_addition(
    g: Recorder,
    y: str,
    scale: float,
    zero_point: int,
    dtype: torch.dtype,
    relu: bool,
    residual_scale: float,
    residual_zero_point: int,
    residual_dtype: torch.dtype,
) -> str:
    """y in uint8 and back, over all that can matter: what beyond it, saturates with any residual.

    From the least output minus the greatest residual to the greatest output minus the least one.
    """
    low, high = ((end - zero_point) * scale for end in limits(dtype))
    low = max(low, 0.0) if relu else low
    least, greatest = (
        (end - residual_zero_point) * residual_scale for end in limits(residual_dtype)
    )
    step, middle = int8.choose_qparams(low - greatest, high - least)
    q = quantized(g, y, step, middle, torch.uint8)
    return real(g, q, step, middle, torch.uint8)


@handles("lowbit::qconv")
def qconv(
    g: Recorder,
    y: Tensor,
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
    *end: Any,
) -> str:
    """Conv of real numbers; its sums are exact in an integer kernel."""
    axes = y.ndim - 2
    w, b, later = weight_and_bias(g, x_scale, weight, w_scales, w_zero_points, bias)
    window = (list(stride), pool.each_axis(list(padding), axes) * 2, list(dilation), groups)
    made = convolved(g, real(g, x, x_scale, x_zero_point), w, b, weight.shape[2:], *window)
    return finished(g, _plus(g, made, later, axes), *end)


@handles("lowbit::qconv_transpose")
def qconv_transpose(
    g: Recorder,
    y: Tensor,
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
    *end: Any,
) -> str:
    """ConvTranspose of real numbers."""
    window = (list(stride), list(padding), list(output_padding), list(dilation), groups)
    w = real_weight(g, weight, w_scales, w_zero_points, 1)
    x_real = real(g, x, x_scale, x_zero_point)
    made = transposed(g, x_real, w, bias, weight.shape[2:], *window)
    return finished(g, made, *end)


@handles("lowbit::qlinear")
def qlinear(
    g: Recorder,
    y: Tensor,
    x: Tensor,
    x_scale: float,
    x_zero_point: int,
    weight: Tensor,
    w_scales: Tensor,
    w_zero_points: Tensor | None,
    bias: Tensor | None,
    scale: float,
    zero_point: int,
    dtype: torch.dtype,
    relu: bool,
    residual: Tensor | None = None,
    residual_scale: float = 1.0,
    residual_zero_point: int = 0,
    packed: Tensor | None = None,
) -> str:
    """Gemm of real numbers, over a matrix of all rows where there are more axes."""
    rows: Any = x if x.ndim == 2 else g.reshaped(x, (-1, x.shape[-1]))
    if residual is not None and x.ndim != 2:
        name = g.reshaped(residual, (-1, y.shape[-1]))
        residual = residual.reshape(-1, y.shape[-1])
        g.bind(residual, name)
    w, b, later = weight_and_bias(g, x_scale, weight, w_scales, w_zero_points, bias)
    made = g.node("Gemm", real(g, rows, x_scale, x_zero_point, x.dtype), w, b, transB=1)
    end = (scale, zero_point, dtype, relu, residual, residual_scale, residual_zero_point)
    made = finished(g, _plus(g, made, later, 0), *end)
    # The first length follows from the others.
    return made if x.ndim == 2 else g.reshaped(made, (-1, *y.shape[1:]))


def _plus(g: Recorder, y: str, bias: Tensor | None, axes: int) -> str:
    if bias is None:
        return y
    return g.node("Add", y, g.constant_of(bias.reshape(-1, *[1] * axes), "bias"))


# Arithmetic of two tensors.


def _binary(op: str, relu: bool = False) -> Handler:
    def handler(
        g: Recorder,
        y: Tensor,
        a: Tensor,
        a_scale: float,
        a_zero_point: int,
        b: Tensor,
        b_scale: float,
        b_zero_point: int,
        scale: float,
        zero_point: int,
        relu: bool = relu,
    ) -> str:
        pair = (real(g, a, a_scale, a_zero_point), real(g, b, b_scale, b_zero_point))
        return quantized(g, g.node(op, *pair), scale, zero_point, y.dtype, relu)

    return handler


handles((arithmetic, "add"), (kernels, "add"))(_binary("Add"))
handles((arithmetic, "add_relu"))(_binary("Add", relu=True))
handles((arithmetic, "mul"), (kernels, "mul"))(_binary("Mul"))
handles((arithmetic, "mul_relu"))(_binary("Mul", relu=True))
handles((arithmetic, "matmul"))(_binary("MatMul"))


@handles((arithmetic, "cat"), (kernels, "cat"))
def cat(
    g: Recorder,
    y: Tensor,
    tensors: Sequence[Tensor],
    scales: Sequence[float],
    zero_points: Sequence[int],
    scale: float,
    zero_point: int,
    dim: int = 0,
) -> str:
    """Of integers where all have the scale of the result already."""
    axis = dim % y.ndim
    own = list(zip(scales, zero_points, strict=True))
    if all(pair == (scale, zero_point) for pair in own):
        return g.node("Concat", *tensors, axis=axis)
    parts = [real(g, tensor, *pair) for tensor, pair in zip(tensors, own, strict=True)]
    return quantized(g, g.node("Concat", *parts, axis=axis), scale, zero_point, y.dtype)


@handles((arithmetic, "add_scalar"))
def add_scalar(
    g: Recorder, result: Any, values: Tensor, scale: float, zero_point: int, other: float
) -> Any:
    """Nothing where the zero point alone moves; else rounded anew on the scale that has grown."""
    y, grown, limit = result
    if y is values:
        return g.name(values)
    moved = (g.number(scale), g.number(zero_point - round(other / scale), torch.int32))
    wide = g.node("Cast", values, to=torch.int32)
    return quantized(g, g.node("DequantizeLinear", wide, *moved), grown, limit, y.dtype)


@handles((arithmetic, "mul_scalar"))
def mul_scalar(
    g: Recorder, result: Any, values: Tensor, scale: float, zero_point: int, other: float
) -> Any:
    """Nothing where the scale alone changes; else the real product, which is rounded to itself."""
    y, changed, moved = result
    if y is values:
        return g.name(values)
    product = g.node("Mul", real(g, values, scale, zero_point), g.number(other))
    return quantized(g, product, changed, moved, y.dtype)


# Pooling and resizing.


@handles((pool, "max_pool"))
def max_pool(g: Recorder, y: Tensor, values: Tensor, axes: int, *rest: Any, **named: Any) -> str:
    """Of the integers themselves."""
    _check_batch("max_pool", values, axes)
    return max_pooled(g, values, axes, *rest, **named)


@handles((kernels, "max_pool2d"))
def max_pool2d(g: Recorder, y: Tensor, values: Tensor, *rest: Any, **named: Any) -> str:
    return max_pool(g, y, values, 2, *rest, **named)


@handles((kernels, "avg_pool2d"))
def avg_pool2d(
    g: Recorder, y: Tensor, values: Tensor, zero_point: int, *rest: Any, **named: Any
) -> str:
    return avg_pool(g, y, values, zero_point, 2, *rest, **named)


@handles((kernels, "adaptive_avg_pool2d"))
def adaptive_avg_pool2d(
    g: Recorder, y: Tensor, values: Tensor, zero_point: int, output_size: Any
) -> str:
    return adaptive_avg_pool(g, y, values, zero_point, 2, output_size)


def _check_batch(name: str, values: Tensor, axes: int) -> None:
    if values.ndim != axes + 2:
        raise NotImplementedError(
            f"{name} of a tensor without a batch: ONNX has (n, c, ...); give it x.unsqueeze(0)"
        )


@handles((pool, "avg_pool"))
def avg_pool(
    g: Recorder, y: Tensor, values: Tensor, zero_point: int, axes: int, *rest: Any, **named: Any
) -> str:
    """Of integers minus their zero point: the scale is 1 on both sides."""
    _check_batch("avg_pool", values, axes)
    mean = averaged(g, real(g, values, 1.0, zero_point), axes, *rest, **named)
    return quantized(g, mean, 1.0, zero_point, values.dtype)


@handles((pool, "adaptive_avg_pool"))
def adaptive_avg_pool(
    g: Recorder, y: Tensor, values: Tensor, zero_point: int, axes: int, output_size: Any
) -> str:
    """GlobalAveragePool, or AveragePool where windows of one size divide the image."""
    _check_batch("adaptive_avg_pool", values, axes)
    mean = adaptive_mean(g, real(g, values, 1.0, zero_point), values.shape[2:], y.shape[2:])
    return quantized(g, mean, 1.0, zero_point, values.dtype)


@handles((resize, "interpolate"))
def interpolate(
    g: Recorder,
    y: Tensor,
    values: Tensor,
    zero_point: int,
    size: Any = None,
    scale_factor: Any = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
) -> str:
    """``nearest`` picks integers; ``bilinear`` rounds real numbers."""
    if mode == "nearest":
        return resized(g, y, values, size, scale_factor, mode, align_corners)
    x = real(g, values, 1.0, zero_point)
    made = resized(g, y, x, size, scale_factor, mode, align_corners)
    return quantized(g, made, 1.0, zero_point, values.dtype)


# Functions of the real numbers.


def _pointwise(write: Callable[..., str]) -> Handler:
    """A handler that writes (recorder, real input, further arguments) between two scales."""

    def handler(
        g: Recorder,
        y: Tensor,
        values: Tensor,
        x_scale: float,
        x_zero_point: int,
        scale: float,
        zero_point: int,
        *rest: Any,
        **named: Any,
    ) -> str:
        x = real(g, values, x_scale, x_zero_point)
        return quantized(g, write(g, x, *rest, **named), scale, zero_point, y.dtype)

    return handler


def _unary(op: str) -> Callable[..., str]:
    return lambda g, x: g.node(op, x)


def _hardsigmoid(g: Recorder, x: str) -> str:
    return g.node("HardSigmoid", x, alpha=1 / 6, beta=0.5)


def _leaky_relu(g: Recorder, x: str, negative_slope: float = 0.01) -> str:
    return g.node("LeakyRelu", x, alpha=negative_slope)


def _elu(g: Recorder, x: str, alpha: float = 1.0) -> str:
    return g.node("Elu", x, alpha=alpha)


def _celu(g: Recorder, x: str, alpha: float = 1.0) -> str:
    return g.node("Celu", x, alpha=alpha)


def _softmax(g: Recorder, x: str, dim: int) -> str:
    return g.node("Softmax", x, axis=dim)


_ACTIVATIONS: dict[str, Callable[..., str]] = {
    "hardswish": _unary("HardSwish"),
    "sigmoid": _unary("Sigmoid"),
    "tanh": _unary("Tanh"),
    "hardsigmoid": _hardsigmoid,
    "leaky_relu": _leaky_relu,
    "elu": _elu,
    "celu": _celu,
    "softmax": _softmax,
}
for _name, _write in _ACTIVATIONS.items():
    handles((activations, _name))(_pointwise(_write))


@handles((activations, "threshold"))
def threshold(
    g: Recorder,
    y: Tensor,
    values: Tensor,
    x_scale: float,
    x_zero_point: int,
    limit: float,
    value: float,
) -> str:
    """x where it is greater, else the value."""
    x = real(g, values, x_scale, x_zero_point)
    chosen = g.node("Where", g.node("Greater", x, g.number(limit)), x, g.number(value))
    return quantized(g, chosen, x_scale, x_zero_point, y.dtype)


@handles((activations, "prelu"))
def prelu(
    g: Recorder,
    y: Tensor,
    values: Tensor,
    x_scale: float,
    x_zero_point: int,
    weight: Tensor,
    scale: float,
    zero_point: int,
) -> str:
    """PRelu, its slopes along axis 1."""
    slopes = weight.float()
    if slopes.numel() > 1:
        slopes = slopes.reshape(-1, *[1] * (y.ndim - 2))
    x = real(g, values, x_scale, x_zero_point)
    made = g.node("PRelu", x, g.constant_of(slopes, "slopes"))
    return quantized(g, made, scale, zero_point, y.dtype)


# Normalizations.


@handles((norm, "batch_norm"))
def batch_norm(
    g: Recorder,
    y: Tensor,
    values: Tensor,
    x_scale: float,
    x_zero_point: int,
    mean: Tensor,
    var: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
    scale: float,
    zero_point: int,
) -> str:
    """BatchNormalization with the running statistics."""
    weight, bias = affine(g, mean.shape[0], weight, bias)
    x = real(g, values, x_scale, x_zero_point)
    made = g.node("BatchNormalization", x, weight, bias, mean, var, epsilon=eps)
    return quantized(g, made, scale, zero_point, y.dtype)


@handles((norm, "layer_norm"))
def layer_norm(
    g: Recorder,
    y: Tensor,
    values: Tensor,
    x_scale: float,
    x_zero_point: int,
    normalized_shape: Sequence[int],
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
    scale: float,
    zero_point: int,
) -> str:
    """LayerNormalization over the last axes."""
    x = real(g, values, x_scale, x_zero_point)
    made = layer_normalized(g, x, normalized_shape, weight, bias, eps)
    return quantized(g, made, scale, zero_point, y.dtype)


@handles((norm, "group_norm"))
def group_norm(
    g: Recorder,
    y: Tensor,
    values: Tensor,
    x_scale: float,
    x_zero_point: int,
    num_groups: int,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
    scale: float,
    zero_point: int,
) -> str:
    """GroupNormalization, weight and bias for each channel."""
    weight, bias = affine(g, y.shape[1], weight, bias)
    x = real(g, values, x_scale, x_zero_point)
    made = g.node("GroupNormalization", x, weight, bias, num_groups=num_groups, epsilon=eps)
    return quantized(g, made, scale, zero_point, y.dtype)


@handles((norm, "instance_norm"))
def instance_norm(
    g: Recorder,
    y: Tensor,
    values: Tensor,
    x_scale: float,
    x_zero_point: int,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
    scale: float,
    zero_point: int,
) -> str:
    """InstanceNormalization."""
    weight, bias = affine(g, y.shape[1], weight, bias)
    x = real(g, values, x_scale, x_zero_point)
    made = g.node("InstanceNormalization", x, weight, bias, epsilon=eps)
    return quantized(g, made, scale, zero_point, y.dtype)


# Embeddings.


@handles((embedding, "embedding"))
def embedding_rows(g: Recorder, y: Tensor, table: Tensor, indices: Any, bits: int = 8) -> str:
    """Integers, scales and biases of the rows, each gathered."""
    codes, scales, biases = embedding.unpack_rows(table, bits)
    picked = [
        g.node("Gather", g.constant_of(part, name), indices, axis=0)
        for part, name in (
            (codes, "codes"),
            (scales.unsqueeze(1), "scales"),
            (biases.unsqueeze(1), "biases"),
        )
    ]
    real_codes = g.node("Cast", picked[0], to=torch.float32)
    return g.node("Add", g.node("Mul", real_codes, picked[1]), picked[2])


@handles((embedding, "embedding_bag"))
def embedding_bag(
    g: Recorder,
    y: Tensor,
    table: Tensor,
    indices: Tensor,
    offsets: Tensor | None = None,
    bits: int = 8,
    mode: str = "sum",
    per_sample_weights: Tensor | None = None,
    include_last_offset: bool = False,
    padding_idx: int | None = None,
) -> str:
    """Rows reduced over bags of one size."""
    check_bags(indices, per_sample_weights, padding_idx)
    return reduced(g, embedding_rows(g, y, table, indices, bits), mode)
