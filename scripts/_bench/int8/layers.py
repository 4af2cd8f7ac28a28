"""Layers of drawn integers: lowbit's, the legacy engine's of the same integers, and float ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

import lowbit
from _bench.bench import Bench
from _bench.int8 import legacy
from _bench.int8.quality import near, same_integers
from _bench.layers import best_float
from _bench.race import Race, Runner
from lowbit.nn import quantized
from lowbit.nn.quantized import dynamic
from lowbit.qconfig import default_dynamic_qconfig
from lowbit.qtensor import QTensor

LEGACY, LOWBIT = "legacy", "lowbit"
# An int8 layer of normal weights and inputs has about 35 dB, 7 bits of inputs about 30.
LEAST_DB = 20.0


@dataclass
class Pair:
    """The calls of one layer; ``legacy`` is None where torch has no more of it."""

    ours: Runner
    theirs: Runner | None

    def runners(self, kind: str = "") -> dict[str, Runner]:
        after = f" {kind}" if kind else ""
        found = {LOWBIT + after: self.ours}
        return found if self.theirs is None else {**found, LEGACY + after: self.theirs}


def quantized_input(x: Tensor) -> QTensor:
    """uint8 over the range of x, in its layout."""
    scale, zero_point = qparams(x)
    return lowbit.quantize_per_tensor(x, scale, zero_point, "uint8")


def qparams(x: Tensor) -> tuple[float, int]:
    """Scale and zero point with which 0 .. 255 span x and 0."""
    low, high = min(0.0, float(x.min())), max(0.0, float(x.max()))
    scale = (high - low) / 255
    return scale, round(-low / scale)


def static(layer: nn.Module, kind: str, x: Tensor, arguments: Mapping[str, Any]) -> Pair:
    """``kind`` is the name of both int8 modules and ``arguments`` theirs; x is real.

    Both have the same integers of the weight, by channels, and give the same integers.
    """
    ours = getattr(quantized, kind)(**arguments)
    weight, bias = layer.weight.detach(), layer.bias.detach()
    scales = weight.flatten(1).abs().amax(1).double() / 127
    zeros = torch.zeros(len(scales), dtype=torch.int64)
    ours.set_weight_bias(lowbit.quantize_per_channel(weight, scales, zeros, 0, "int8"), bias)
    codes = quantized_input(x)
    with torch.inference_mode():
        y = layer(x)
        ours.scale, ours.zero_point = qparams(y)
        found = ours(codes)
        near(found.dequantize(), y, LEAST_DB, f"lowbit's {kind}")
    if legacy.reason() is not None:
        return Pair(lambda: ours(codes), None)
    theirs, their_codes = legacy.weighted(ours, kind, **arguments), legacy.tensor(codes)
    with torch.inference_mode():
        same_integers(found.int_repr(), theirs(their_codes).int_repr(), kind)
    return Pair(lambda: ours(codes), lambda: theirs(their_codes))


def dynamically(layer: nn.Module, x: Tensor) -> Pair:
    """The dynamic int8 layers of a float one, real input and output; per tensor, 7 bits of x."""
    kind: Any = getattr(dynamic, type(layer).__name__)
    layer.qconfig = default_dynamic_qconfig
    ours = kind.from_float(layer)
    del layer.qconfig
    with torch.inference_mode():
        y, found = first(layer(x)), first(ours(x))
    near(found, y, LEAST_DB, f"lowbit's dynamic {kind.__name__}")
    if legacy.reason() is not None:
        return Pair(lambda: ours(x), None)
    theirs = legacy.dynamic(layer)
    with torch.inference_mode():
        # Two roundings of one number may lie either side of a tie.
        near(found, first(theirs(x)), 2 * LEAST_DB, f"beside the legacy {kind.__name__}, ours")
    return Pair(lambda: ours(x), lambda: theirs(x))


def first(y: Any) -> Tensor:
    """The output of a layer that returns its state too."""
    return y[0] if isinstance(y, tuple) else y


def prepacked(layer: nn.Module, x: Tensor) -> Callable[[], Tensor]:
    """oneDNN in float32 with weights laid out ahead."""
    if isinstance(layer, nn.Conv2d):
        return best_float(nn.Sequential(layer, nn.BatchNorm2d(layer.out_channels)).eval(), x)
    return best_float(nn.Sequential(layer), x)


def no_slower(bench: Bench, done: Race, kind: str = "") -> tuple[float | None, float | None, str]:
    """Times the legacy engine, what it must be, and the note of a figure."""
    after = f" {kind}" if kind else ""
    if LEGACY + after not in done.rounds[0]:
        return None, None, legacy.reason() or ""
    note = f"{1e6 * done.median(LOWBIT + after):.1f} us"
    return done.ratio(LEGACY + after, LOWBIT + after), bench.goal(1.0), note
