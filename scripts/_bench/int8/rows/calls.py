"""What calling an int8 module costs where there is next to nothing to compute."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn

from _bench.bench import Bench
from _bench.figure import Figure
from _bench.int8 import layers

FEATURES = 16


def run(bench: Bench) -> Iterator[Figure]:
    torch.manual_seed(0)
    conv, image = nn.Conv2d(FEATURES, FEATURES, 1), torch.randn(1, FEATURES, 1, 1)
    linear, rows = nn.Linear(FEATURES, FEATURES), torch.randn(1, FEATURES)
    of_conv = {"in_channels": FEATURES, "out_channels": FEATURES, "kernel_size": 1}
    of_linear = {"in_features": FEATURES, "out_features": FEATURES}
    yield from _figures(bench, "Conv2d", layers.static(conv, "Conv2d", image, of_conv), conv, image)
    yield from _figures(
        bench, "Linear", layers.static(linear, "Linear", rows, of_linear), linear, rows
    )
    yield from _figures(bench, "dynamic Linear", layers.dynamically(linear, rows), linear, rows)


def _figures(
    bench: Bench, case: str, pair: layers.Pair, layer: nn.Module, x: torch.Tensor
) -> Iterator[Figure]:
    done = bench.race({**pair.runners(), "float": lambda: layer(x)})
    for name in done.rounds[0]:
        if name != "clock":
            taken = 1e6 * done.median(name)
            times = done.microseconds()
            yield Figure(f"{case}, {name}", taken, "us", smaller=True, times=times)
