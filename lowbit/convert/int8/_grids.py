"""Layers with quantizers of many levels, which packed bits would not make faster, in int8."""

from __future__ import annotations

import copy
from typing import Any

from lowbit.convert._trace import HOOKS, has_hooks
from lowbit.convert.int8._islands import Island
from lowbit.convert.int8._layers import WEIGHTED, why_not
from lowbit.convert.int8._lower import quantize
from lowbit.convert.int8._made import int8_layer
from lowbit.convert.int8._plain import PLAIN
from lowbit.nn import QuantizedLayer
from lowbit.qconfig import ActivationQuantizer, WeightQuantizer


class NoInt8(ValueError):
    """Why a layer has no int8 form."""


def int8_twin(layer: QuantizedLayer) -> Island:
    """What computes ``layer`` in int8: its input's codes, its weight's codes, float32 out.

    Both quantizers must give whole numbers of steps of one size, at most 8 bits of them, and the
    input's always the same ones; then the sums are exact. Raises ``NoInt8``.
    """
    if has_hooks(layer):
        raise NoInt8(f"it has {HOOKS}, which would be lost; remove them first")
    if layer.input_quantization is None or layer.weight_quantization is None:
        which = "input" if layer.input_quantization is None else "weight"
        raise NoInt8(f"its {which} is not quantized")
    if PLAIN.get(type(layer)) not in WEIGHTED:
        raise NoInt8(f"{type(layer).__name__} has no int8 form")
    if layer._is_input_scaled():
        raise NoInt8("its output is scaled by its inputs")
    pad_value = getattr(layer, "pad_value", 0)
    if pad_value not in (None, 0):
        raise NoInt8(f"it pads with {pad_value:g}, and int8 with 0")
    plain: Any = copy.deepcopy(layer)
    plain.__class__ = PLAIN[type(layer)]
    if why_not(plain):
        raise NoInt8(why_not(plain))
    state = [*plain.input_quantization.parameters(), *plain.input_quantization.buffers()]
    if any(tensor.numel() > 1 for tensor in state):
        raise NoInt8("its input quantizer has values for each channel, and int8 one scale for all")
    plain.input_quantization.axis = -1  # its grid is read off a row of numbers
    plain.weight_fake_quant = WeightQuantizer(plain.weight_quantization)
    try:
        made = quantize(ActivationQuantizer(plain.input_quantization), "input_quantization")
        return Island(made, int8_layer(plain, None, False, False, ""))
    except ValueError as error:
        raise NoInt8(str(error)) from error
