"""Dynamic LSTM and GRU beside the legacy engine and torch's float ones."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn

from _bench.bench import Bench
from _bench.figure import Figure
from _bench.int8 import layers

# Input size, hidden size.
SIZES, QUICK_SIZES = ((128, 256), (512, 512)), ((8, 16),)
STEPS, QUICK_STEPS = (28, 64), (3,)
BATCHES, QUICK_BATCHES = (1, 16), (2,)


def run(bench: Bench) -> Iterator[Figure]:
    sizes = QUICK_SIZES if bench.quick else SIZES
    steps = QUICK_STEPS if bench.quick else STEPS
    batches = QUICK_BATCHES if bench.quick else BATCHES
    for size in sizes:
        for length in steps:
            for batch in batches:
                yield from _one(bench, nn.LSTM(*size), length, batch)
    yield from _one(bench, nn.GRU(*sizes[0]), steps[0], batches[0])


def _one(bench: Bench, layer: nn.RNNBase, steps: int, batch: int) -> Iterator[Figure]:
    torch.manual_seed(0)
    for parameter in layer.parameters():
        nn.init.uniform_(parameter, -(layer.hidden_size**-0.5), layer.hidden_size**-0.5)
    x = torch.randn(steps, batch, layer.input_size)
    done = bench.race({**layers.dynamically(layer, x).runners(), "float": lambda: layer(x)})
    sizes = f"{layer.input_size} to {layer.hidden_size}"
    case, times = f"{layer.mode} {sizes}, {steps} steps of {batch}", done.microseconds()
    value, must, note = layers.no_slower(bench, done)
    yield Figure(case, value, "x legacy", must, note=note, times=times)
    yield Figure(case, done.ratio("float", layers.LOWBIT), "x float", times=times)
