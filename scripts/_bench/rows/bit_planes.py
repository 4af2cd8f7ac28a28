"""Layers of a few bits on the binary kernels, float in and out, over torch's int8."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from _bench import layers
from _bench.bench import Bench, maps
from _bench.figure import Figure

TWO_BITS = {"name": "dorefa_input", "bits": 2}
# quantizers of input and weight; must and moonshot
FORMS: dict[str, tuple[Any, Any, float | None, float | None]] = {
    "W1A2": (TWO_BITS, "sign", 1.5, 2.5),
    "W2A2": (TWO_BITS, {"name": "dorefa_weight", "bits": 2}, None, None),
    "ternary weights": ("sign", "twn", None, None),
}


def run(bench: Bench) -> Iterator[Figure]:
    for name, (channels, size) in maps(bench).items():
        float_model = layers.float_layer(layers.conv_norm(channels, channels), torch.channels_last)
        x = torch.rand(1, channels, size, size) * 1.2 - 0.1
        x = x.contiguous(memory_format=torch.channels_last)
        runners = {
            "int8": layers.int8_conv(float_model, x),
            "best float": layers.best_float(float_model, x),
        }
        for form, (reads, weighs, *_) in FORMS.items():
            quantization = {"input_quantization": reads, "weight_quantization": weighs}
            model = layers.conv_norm(channels, channels, **quantization)
            packed = layers.packed(model, x)
            runners[form] = lambda packed=packed, x=x: packed(x)
        done = bench.race(runners)
        for form, (*_, must, moonshot) in FORMS.items():
            yield Figure(
                f"{name}, {form}",
                done.ratio("int8", form),
                "x int8",
                None if must is None else bench.goal(must),
                None if moonshot is None else bench.goal(moonshot),
                note=f"{done.ratio('best float', form):.1f}x best float",
                times=done.microseconds(),
            )
