"""From a trained layer to a packed one: two codes, and what one convolution does not give."""

from __future__ import annotations

from typing import Any, TypeVar

import torch
from torch import Tensor

from lowbit.functional.packed_conv import AFFINE, prepare_words
from lowbit.functional.packed_geometry import Geometry, largest_code
from lowbit.nn._layer import QuantizedLayer
from lowbit.nn.packed._errors import ULP, CannotPack
from lowbit.nn.packed._inputs import InputCode, input_code
from lowbit.nn.packed._layer import PackedLayer
from lowbit.nn.packed._weights import WeightCode, quantized, weight_code

Packed = TypeVar("Packed", bound=PackedLayer)


def packed_from(cls: type[Packed], layer: QuantizedLayer, dims: int, **options: Any) -> Packed:
    """A packed layer of class ``cls`` that computes what a trained layer does in evaluation.

    ``dims``: axes after the channels. Options are those of ``Geometry.of``; ``pad``, the number
    that lies around the image; ``parts``, further arguments of ``cls``. Raises ``CannotPack``.
    """
    code, w, weights = _codes_of(layer, dims)
    pad = options.pop("pad", 0.0)
    parts = options.pop("parts", {})
    groups = options.get("groups", 1)
    padded = any(options.get("before", ())) or any(options.get("after", ()))
    border = _border(code, pad, padded)
    whole = border is None
    # Where nothing surrounds the image, its constant part adds the same everywhere.
    surrounded = border is not None and border[0] != border[1]
    ones = bool((weights.constant != 0).any())
    terms = len(weights.filters) if ones or len(weights.filters) > 1 or surrounded else 0
    filters = _stacked(weights, groups, ones)
    try:
        geometry = Geometry.of(
            channels=w.shape[1] * groups,
            out_channels=len(filters),
            pad=round(2 * pad / code.step) if whole and padded else 0,
            offset=round(code.offset) if whole else 0,
            planes_x=code.planes,
            thermometer_x=int(code.thermometer),
            planes_w=weights.planes,
            thermometer_w=int(weights.thermometer),
            **options,
        )
        geometry.check()
    except ValueError as error:
        raise CannotPack(str(error)) from error
    act_scale = layer._is_input_scaled()
    packed = cls(
        geometry,
        thresholds=None if code.thresholds is None else tuple(code.thresholds.shape),
        terms=terms,
        ones=ones,
        border=border if terms else None,
        act_scale=act_scale,
        **parts,
    )
    packed.weight = prepare_words(filters, weights.planes, weights.thermometer)
    packed._hold("thresholds", code.thresholds)
    sums = weights.decoded().flatten(2).sum(1) if w.ndim > 2 else weights.decoded().sum(1, True)
    half = code.step / 2
    shift = torch.zeros(len(w), dtype=torch.float64)
    bias = shift if layer.bias is None else layer.bias.detach().double()
    if act_scale:
        assert packed.late_bias is not None
        packed.late_bias = bias.float()
    else:
        shift = shift + bias
    if terms:
        scale = torch.ones_like(shift)
        mix = [factor * half for factor in weights.factors]
        if ones:
            largest = largest_code(weights.planes, weights.thermometer)
            mix.append(weights.constant * half / largest)
        packed.mix = torch.stack(mix)
        packed._hold("tap_sums", sums if packed.border is not None else None)
    else:
        scale = weights.factors[0] * half
        if border is not None:
            shift = shift + border[0] * sums.sum(1)
    packed.set_output("float", (AFFINE,), torch.stack([scale, shift]).float())
    packed.train(layer.training)
    packed.refresh()
    return packed


def _codes_of(layer: QuantizedLayer, dims: int) -> tuple[InputCode, Tensor, WeightCode]:
    """The input's code, the quantized weight, and its code; ``CannotPack`` says what has none."""
    if layer.weight.dtype == torch.float64:
        raise CannotPack("the layer computes in float64, packed layers in float32: use .float()")
    if layer.weight.device.type != "cpu":
        raise CannotPack(f"the layer is on {layer.weight.device}, packed layers on the cpu")
    if not layer.weight.numel():
        raise CannotPack("the layer has no weights")
    channels = layer.weight.shape[1] * getattr(layer, "groups", 1)
    code = input_code(layer.input_quantization, channels, dims)
    w = quantized(layer.weight_quantization, layer.weight)
    return code, w, weight_code(w)


def _border(code: InputCode, pad: float, padded: bool) -> tuple[float, float] | None:
    """(constant part of the input, what lies around it), where they are no integers; else None."""
    constant = code.offset * code.step / 2
    around = 2 * pad / code.step
    exact = abs(around - round(around)) <= ULP * max(abs(around), 1)
    if code.offset == round(code.offset) and (exact or not padded):
        return None
    return constant, pad if padded else constant


def _stacked(weights: WeightCode, groups: int, ones: bool) -> Tensor:
    """The filters of all terms, group by group, each with a filter of the largest code."""
    parts = [f.view(groups, -1, *f.shape[1:]) for f in weights.filters]
    if ones:
        largest = largest_code(weights.planes, weights.thermometer)
        parts.append(torch.full_like(parts[0][:, :1], largest))
    return torch.cat(parts, 1).flatten(0, 1)
