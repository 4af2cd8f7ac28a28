"""The same layers with contiguous (NCHW) tensors: over their channels_last time."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from _bench import layers
from _bench.bench import Bench, maps
from _bench.figure import Figure


def run(bench: Bench) -> Iterator[Figure]:
    for name, (channels, size) in maps(bench).items():
        model = layers.conv_norm(channels, channels)
        x = torch.randn(1, channels, size, size)
        last = x.contiguous(memory_format=torch.channels_last)
        twin = layers.float_layer(model, torch.contiguous_format)
        packed, packed_last = layers.packed(model, x), layers.packed(model, last)
        done = bench.race(
            {
                "lowbit": lambda packed=packed, x=x: packed(x),
                "channels_last": lambda packed=packed_last, x=last: packed(x),
                "torch": lambda twin=twin, x=x: twin(x),
            }
        )
        yield Figure(
            name,
            done.ratio("lowbit", "channels_last"),
            "x channels_last",
            bench.goal(1.25),
            bench.goal(1.1),
            smaller=True,
            note=f"{done.ratio('torch', 'lowbit'):.1f}x torch NCHW",
            times=done.microseconds(),
        )
