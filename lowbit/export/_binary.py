"""Handlers of layers with few values: small integers in the standard operators.

A packed layer convolves integers A of its input with integers B of its weight, and P lies around
the image. Written down is

    V = step conv(u, B, 0 around) + P sum(B)        u = (A + offset - P) / step

so that the operator's own padding is right for every P; step is 2 where that leaves u whole. u is
made by comparing the input with the layer's thresholds. Sums of float32 are these integers exactly
as far as 2^24. Signs of outputs, which packed layers hand on as words of bits, are here numbers 0
(negative) and 1.

``Recorder.binary`` chooses the operators: "float"; "int8", where u and B go through integers of 8
bits (QuantizeLinear, DequantizeLinear) for runtimes with integer kernels; "openvino", which is
"int8" but for two-dimensional layers of signs, for which see ``_openvino``.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lowbit import kernels
from lowbit.export import _floats
from lowbit.export._operators import bags, convolved, max_pooled
from lowbit.export._recorder import Handler, Recorder, Signs, Target, registering
from lowbit.export._thresholds import levels
from lowbit.export._weights import decoded, packed_signs, small, unpacked
from lowbit.functional.packed_geometry import Geometry, largest_code
from lowbit.functional.packing import unpack_bits
from lowbit.nn import QuantizedLayer
from lowbit.nn.packed import PACKED, CannotPack, PackedEmbeddingBag, PackedLayer, from_trained
from lowbit.nn.packed.embedding import _PackedTable
from lowbit.quantizers import Quantizer

HANDLERS: dict[str, Handler] = {}
FUNCTIONS: dict[str, Target] = {}
handles = registering(HANDLERS, FUNCTIONS)

# Weights with fewer numbers are stored as they are.
LEAST_PACKED = 256


class Code:
    """How a layer's input becomes u, and what stands around it.

    ``pad`` is P, ``step`` the step, ``values`` (low, high) the least and the largest u, ``rise``
    what u grows by at each threshold.
    """

    def __init__(self, geometry: Geometry) -> None:
        largest = largest_code(geometry.planes_x, geometry.thermometer_x)
        low, high = geometry.offset - largest, geometry.offset + largest
        self.pad = geometry.pad if geometry.padded else low
        self.step = 1 if (low - self.pad) % 2 else 2
        self.values = (low - self.pad) // self.step, (high - self.pad) // self.step
        self.rise = 2 // self.step

    @property
    def dtype(self) -> torch.dtype | None:
        """The integers of 8 bits that hold u; None if none do."""
        low, high = self.values
        if low >= 0 and high <= 255:
            return torch.uint8
        return torch.int8 if low >= -128 and high <= 127 else None


@handles((QuantizedLayer, "forward"))
def trained(g: Recorder, y: Tensor, layer: QuantizedLayer, x: Tensor) -> Any:
    """A trained layer, as the packed layer that it becomes; else its definition."""
    if type(layer) in PACKED:
        try:
            return g.inside(from_trained(layer).eval(), x)
        except CannotPack:
            pass
    fused, layer.fused = layer.fused, False
    weight = layer._quantized_weight()
    if layer.weight_quantization is not None and weight.numel() >= LEAST_PACKED:
        g.bind_constant(weight, small(g, weight))
    layer._quantized_weight = lambda: weight  # type: ignore[method-assign]
    try:
        return g.inside(g.again, layer, x)
    finally:
        del layer._quantized_weight
        layer.fused = fused


@handles((Quantizer, "forward"))
def quantizer(g: Recorder, y: Tensor, quantizer: Quantizer, x: Tensor) -> Any:
    """Plain signs by one comparison; all else by its own arithmetic."""
    if quantizer.value_is_sign:
        below = g.node("Less", x, g.number(0, x.dtype))
        return g.node("Where", below, g.number(-1, x.dtype), g.number(1, x.dtype))
    return g.inside(quantizer.value, x)


@handles((PackedLayer, "_run"))
def packed(
    g: Recorder, y: Any, layer: PackedLayer, x: Tensor, residual: Any, channels_last: bool
) -> Any:
    """A packed layer: its integers, and what follows them."""
    axes = x.ndim - 2
    if layer.terms:
        return followed(g, layer, several_terms(g, layer, x), 1, residual, axes)
    code = Code(layer.geometry)
    if g.binary == "openvino" and _is_binary(layer, axes):
        v, step, rest = binary_convolution(g, layer, x), 1, torch.zeros(layer.out_channels)
    elif layer.out == "bits" and g.binary != "float" and _in_int8(layer):
        return signs_in_int8(g, layer, x)
    else:
        integers = layer.weight_integers()
        step, rest = code.step, integers.flatten(1).sum(1) * code.pad
        v = multiplied(
            g,
            layer,
            entered(g, layer, x, code),
            _weight(g, layer, integers),
            None if layer.out == "bits" else rest / step,
        )
    if layer.out == "int":
        return g.node("Cast", _times(g, v, step), to=torch.int32)
    if layer.out == "bits":
        assert layer.params is not None
        threshold, flip = layer.params.double()
        return signs_of(g, v, (threshold - 0.5 - rest) / step, flip.bool(), axes)
    return followed(g, layer, v, step, residual, axes)


def _in_int8(layer: PackedLayer) -> bool:
    """Whether both operands of the layer fit into integers of 8 bits."""
    geometry = layer.geometry
    largest = largest_code(geometry.planes_w, geometry.thermometer_w)
    return Code(geometry).dtype is not None and largest <= 127


def _weight(g: Recorder, layer: PackedLayer, integers: Tensor) -> str:
    """The integers of a weight as real numbers, without the axes that the layer has not."""
    geometry = layer.geometry
    largest = largest_code(geometry.planes_w, geometry.thermometer_w)
    integers = integers.reshape(*integers.shape[:2], *_kernel(layer))
    if g.binary == "float" or not _in_int8(layer):
        return unpacked(g, integers, largest)
    values = unpacked(g, integers, largest, torch.int8)
    return g.node("DequantizeLinear", values, g.number(1.0), g.number(0, torch.int8))


def _axes(layer: PackedLayer) -> int:
    return getattr(layer, "dims", 0)


def _kernel(layer: PackedLayer) -> tuple[int, ...]:
    return layer.geometry.kernel[3 - _axes(layer) :]


def _times(g: Recorder, x: str, factor: int) -> str:
    return x if factor == 1 else g.node("Mul", x, g.number(float(factor)))


def _spread(values: Tensor, axes: int) -> Tensor:
    """A number for each channel, as it stands against (n, channels, ...); or one for all."""
    values = values.float()
    if bool((values == values[:1]).all()):
        return values[:1].reshape(())
    return values.reshape(-1, *[1] * axes)


# The input.


def entered(g: Recorder, layer: PackedLayer, x: Tensor, code: Code) -> str:
    """u, of real numbers or of packed signs."""
    low, high = code.values
    if x.dtype == torch.int64:
        u = _given_signs(g, layer, x)
        if (low, high) == (0, 1):
            return u
        u = _times(g, u, high - low)
        u = g.node("Add", u, g.number(float(low))) if low else u
    else:
        u = levels(g, x, layer.thresholds, low, code.rise)
    if g.binary == "float" or not _in_int8(layer):
        return u
    assert code.dtype is not None  # _in_int8
    return through_integers(g, u, code.dtype)


def _given_signs(g: Recorder, layer: PackedLayer, x: Tensor) -> str:
    """The name of packed signs that a layer of this graph gave."""
    if g.name(x) not in g.signs:
        raise NotImplementedError(
            f"{type(layer).__name__} takes packed words, which no file hands over: export a "
            "model that takes numbers"
        )
    return g.name(x)


def through_integers(g: Recorder, u: str, dtype: torch.dtype) -> str:
    """Whole numbers as integers and back, where runtimes see that they are."""
    pair = (g.number(1.0), g.number(0, dtype))
    return str(g.node("DequantizeLinear", g.node("QuantizeLinear", u, *pair), *pair))


# The sums.


def multiplied(
    g: Recorder, layer: PackedLayer, u: str, weight: str, bias: Tensor | str | None
) -> str:
    """conv(u, weight) + bias, or the product of matrices that it is without axes."""
    geometry, axes = layer.geometry, _axes(layer)
    if isinstance(bias, Tensor):
        bias = g.constant_of(bias.float(), "bias") if bool(bias.any()) else None
    if axes == 0:
        return str(g.node("Gemm", u, weight, bias, transB=1))
    stride, before, after, dilation = (
        list(sizes[3 - axes :])
        for sizes in (geometry.stride, geometry.before, geometry.after, geometry.dilation)
    )
    window = (stride, before + after, dilation, geometry.groups)
    return convolved(g, u, weight, bias, _kernel(layer), *window)


def several_terms(g: Recorder, layer: PackedLayer, x: Tensor) -> str:
    """Outputs of several filters and constants: one convolution with the weight that they make."""
    assert layer.mix is not None
    geometry, code, axes = layer.geometry, Code(layer.geometry), _axes(layer)
    largest = largest_code(geometry.planes_w, geometry.thermometer_w)
    integers = layer.weight_integers()
    integers = integers.reshape(geometry.groups, -1, *integers.shape[1:2], *_kernel(layer))
    own = layer.out_channels // geometry.groups
    filters = [integers[:, j * own : (j + 1) * own].flatten(0, 1) for j in range(layer.terms)]
    constant = layer.mix[-1] * largest if layer.ones else torch.zeros(layer.out_channels).double()
    factors = layer.mix[: len(filters)]
    weight = decoded(g, filters, factors * code.step, constant * code.step, largest)
    whole = constant.view(-1, *[1] * (axes + 1)) + sum(
        factor.view(-1, *[1] * (axes + 1)) * part
        for factor, part in zip(factors, filters, strict=True)
    )
    bias = whole.flatten(1).sum(1) * code.pad
    y = multiplied(g, layer, entered(g, layer, x, code), weight, bias)
    if layer.border is None:
        return y
    constants = layer._constants(x.shape[2:])[0].float()
    if bool((constants.flatten(1) == constants.flatten(1)[:, :1]).all()):
        constants = _spread(constants.flatten(1)[:, 0], axes)
    return str(g.node("Add", y, g.constant_of(constants, "constants")))


# What follows.


def followed(g: Recorder, layer: PackedLayer, v: str, step: int, residual: Any, axes: int) -> Any:
    """The steps after the sums, which are step v; and the signs of what comes out."""
    rows = iter(() if layer.params is None else layer.params)

    def row() -> Tensor:
        return _spread(next(rows), axes)

    y = _times(g, v, step) if kernels.AFFINE not in layer.steps[:1] else v
    for number, kind in enumerate(layer.steps):
        if kind == kernels.AFFINE:
            y = _affine(g, y, row().double() * (step if number == 0 else 1), row())
        elif kind == kernels.RELU:
            y = g.node("Relu", y)
        elif kind == kernels.RESIDUAL:
            y = g.node("Add", y, residual)
        elif kind == kernels.PRELU:
            slopes = row()
            y = g.node("PRelu", y, g.constant_of(slopes, "slopes"))
        elif kind == kernels.SHIFT:
            y = g.node("Add", y, g.constant_of(row(), "shift"))
        else:
            y = g.node("Clip", y, g.number(-1.0), g.number(1.0))
    if layer.out != "both":
        return y
    threshold = next(rows, torch.zeros(layer.out_channels))
    return [y, signs_of(g, y, threshold, torch.zeros(len(threshold), dtype=torch.bool), axes)]


def _affine(g: Recorder, y: str, scale: Tensor, shift: Tensor) -> str:
    """scale y + shift.

    By a division, since runtimes move a factor into the weights before it, whose sums are then
    integers no more: a sum of 0 would be as good as negative.
    """
    if bool((scale != 1).any()):
        y = g.node("Div", y, g.constant_of((1 / scale).float(), "step"))
    return g.node("Add", y, g.constant_of(shift, "shift")) if bool((shift != 0).any()) else y


def signs_of(g: Recorder, y: Any, threshold: Tensor, flip: Tensor, axes: int) -> str:
    """0 where y is below its channel's threshold, else 1; the other way where flipped."""
    below = g.node("Less", y, g.constant_of(_spread(threshold, axes), "threshold"))
    ends = (g.constant_of(_spread(end, axes), "sign") for end in (flip, ~flip))
    signs = str(g.node("Where", below, *ends))
    signs = signs if g.binary == "float" else through_integers(g, signs, torch.uint8)
    g.signs[signs] = Signs(len(threshold), y, threshold, flip)
    return signs


def _remember(g: Recorder, signs: str, channels: int) -> str:
    """``signs``, known as such: of numbers 0 and 1."""
    g.signs[signs] = Signs(channels, signs, torch.tensor([0.5]), torch.tensor([False]))
    return signs


def signs_in_int8(g: Recorder, layer: PackedLayer, x: Tensor) -> str:
    """Signs of sums, by a convolution that runtimes do in integers from end to end.

    QuantizeLinear of U + 1 - t with a step of 1 is 0 where U < t, and 1 or more where it is not.
    A channel whose signs are turned round is computed with its weights negated.
    """
    assert layer.params is not None
    threshold, flip = layer.params.double()
    code, integers = Code(layer.geometry), layer.weight_integers()
    sums = integers.flatten(1).sum(1) * code.pad
    least = ((threshold - sums) / code.step).ceil()  # the least U that is not below
    turned = flip.bool()
    integers = torch.where(turned.view(-1, *[1] * 4), -integers, integers)
    bias = torch.where(turned, least, 1 - least)
    pair = (g.number(1.0), g.number(0, torch.int32))
    offset = g.node("DequantizeLinear", g.constant_of(bias.to(torch.int32), "bias"), *pair)
    weight = _weight(g, layer, integers)
    real = multiplied(g, layer, entered(g, layer, x, code), weight, offset)
    byte = (g.number(1.0), g.number(0, torch.uint8))
    q = g.node("QuantizeLinear", real, *byte)
    q = g.node("Clip", q, g.number(0, torch.uint8), g.number(1, torch.uint8))
    return _remember(g, g.node("DequantizeLinear", q, *byte), layer.out_channels)


@handles((kernels, "max_pool_bits"))
def max_pool_bits(
    g: Recorder,
    y: Tensor,
    x: Tensor,
    kernel: Any,
    stride: Any,
    padding: Any,
    dilation: Any,
    ceil_mode: bool = False,
    flip: Tensor | None = None,
) -> str:
    """The largest of signs 0 and 1; turned round where ``flip`` says."""
    pooled = max_pooled(g, x, 2, kernel, stride, padding, dilation, ceil_mode)
    channels = g.signs[g.name(x)].channels
    if flip is not None:
        half = torch.full((channels,), 0.5)
        return signs_of(g, pooled, half, unpack_bits(flip, channels), 2)
    if g.binary != "float":
        pooled = through_integers(g, pooled, torch.uint8)
    return _remember(g, pooled, channels)


@handles("flatten", "view", "reshape")
def flattened(g: Recorder, y: Tensor, x: Tensor, *args: Any, **kwargs: Any) -> str:
    """Packed images in rows, bit by bit in the order of their words; numbers as torch does."""
    if g.name(x) not in g.signs:
        return _floats.reshaped(g, y, x, *args, **kwargs)
    channels = g.signs[g.name(x)].channels
    if y.ndim != 2 or channels != 64 * x.shape[1]:
        raise NotImplementedError(
            f"packed signs {tuple(x.shape)} of {channels} channels in the shape {tuple(y.shape)}: "
            "convert with fold=False"
        )
    made = g.reshaped(x, (x.shape[0], x.shape[1], 64, x[0, 0].numel()))
    made = g.node("Transpose", made, perm=[0, 1, 3, 2])
    made = g.reshaped(made, (x.shape[0], 64 * y.shape[1]))
    made = made if g.binary == "float" else through_integers(g, made, torch.uint8)
    return _remember(g, made, 64 * y.shape[1])


# OpenVINO's own operators.


def _is_binary(layer: PackedLayer, axes: int) -> bool:
    """Whether OpenVINO's BinaryConvolution computes the sums of a layer.

    Of other numbers of channels than multiples of 8, OpenVINO 2026.4 computes wrong ones.
    """
    geometry = layer.geometry
    codes = (geometry.planes_x, geometry.planes_w, geometry.groups, geometry.offset)
    whole = geometry.channels % 8 == 0 and geometry.pad in (-1, 0, 1)
    return axes == 2 and codes == (1, 1, 1, 0) and whole


def binary_convolution(g: Recorder, layer: PackedLayer, x: Tensor) -> str:
    """The sums of a layer of signs, by the operator that ``_openvino`` puts in its place."""
    geometry = layer.geometry
    if x.dtype == torch.int64:
        signs = g.signs[_given_signs(g, layer, x)]
    else:
        threshold = torch.zeros(1) if layer.thresholds is None else layer.thresholds[0].reshape(-1)
        signs = Signs(layer.geometry.channels, g.name(x), threshold, torch.tensor([False]))
    # FakeQuantize has its upper value where a number is greater than a limit. Each convolution has
    # one of its own, with constants of its own: only so is it computed in what comes before, and
    # one that anything else reads as well makes OpenVINO write past its memory.
    limit = torch.nextafter(_spread(signs.threshold, 2), torch.tensor(-torch.inf))
    parts = (limit, _spread(signs.flip, 2), _spread(~signs.flip, 2))
    codes = g.node(
        "lowbit::BinaryQuantize", signs.of, *(g.constant_of(part, "limit") for part in parts)
    )
    integers = layer.weight_integers()
    return str(
        g.node(
            "lowbit::BinaryConvolution",
            codes,
            g.constant_of(packed_signs(integers), "weight"),
            shape=[*integers.shape[:2], *_kernel(layer)],
            strides=list(geometry.stride[1:]),
            pads=[*geometry.before[1:], *geometry.after[1:]],
            dilations=list(geometry.dilation[1:]),
            pad_value=float(geometry.pad),
        )
    )


# Tables.


@handles((_PackedTable, "rows"))
def rows(g: Recorder, y: Tensor, table: _PackedTable, indices: Tensor) -> str:
    """Rows of a table of two values, each gathered."""
    return str(g.node("Gather", _table(g, table), indices, axis=0))


def _table(g: Recorder, table: _PackedTable) -> str:
    """All rows of a table, from bits."""
    smaller = unpack_bits(table.words, table.embedding_dim)
    signs = unpacked(g, 1 - 2 * smaller.double(), 1)
    larger = g.node("Greater", signs, g.number(0.0))
    return str(g.node("Where", larger, *(table.levels[:, j : j + 1] for j in (0, 1))))


@handles((PackedEmbeddingBag, "forward"))
def bag(
    g: Recorder,
    y: Tensor,
    table: PackedEmbeddingBag,
    input: Tensor,
    offsets: Tensor | None = None,
    per_sample_weights: Tensor | None = None,
) -> str:
    """Rows reduced over bags of one size."""
    rest = (table.mode, per_sample_weights, table.padding_idx)
    return bags(g, _table(g, table), input, *rest)
