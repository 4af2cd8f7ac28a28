"""Linear layers, static and dynamic, beside the legacy engine and float ones."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn

from _bench.bench import Bench
from _bench.figure import Figure
from _bench.int8 import layers

ROWS, FEATURES = (1, 32, 256), (1024, 4096)
QUICK_ROWS, QUICK_FEATURES = (3,), (64,)


def run(bench: Bench) -> Iterator[Figure]:
    for features in QUICK_FEATURES if bench.quick else FEATURES:
        for rows in QUICK_ROWS if bench.quick else ROWS:
            yield from _one(bench, rows, features)


def _one(bench: Bench, rows: int, features: int) -> Iterator[Figure]:
    torch.manual_seed(0)
    layer, x = nn.Linear(features, features), torch.randn(rows, features)
    arguments = {"in_features": features, "out_features": features}
    static = layers.static(layer, "Linear", x, arguments)
    dynamic = layers.dynamically(layer, x)
    done = bench.race(
        {
            **static.runners("static"),
            **dynamic.runners("dynamic"),
            "F.linear": lambda: layer(x),
            "best float": layers.prepacked(layer, x),
        }
    )
    times = done.microseconds()
    for kind in ("static", "dynamic"):
        case = f"{rows} x {features} to {features}, {kind}"
        value, must, note = layers.no_slower(bench, done, kind)
        yield Figure(case, value, "x legacy", must, note=note, times=times)
        for rival in ("F.linear", "best float"):
            ratio = done.ratio(rival, f"{layers.LOWBIT} {kind}")
            yield Figure(case, ratio, f"x {rival}", times=times)
