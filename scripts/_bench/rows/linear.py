"""Linear layers with float input and output (sign, pack, product, scale and bias)."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from _bench import layers
from _bench.bench import Bench
from _bench.figure import Figure

LARGE = {"F.linear": (42, 55), "best float": (19, 24), "int8 dynamic": (5.5, 7)}
# (m, n, k) -> rival -> goals
SIZES = {
    (256, 1024, 1024): LARGE,
    (256, 1024, 4096): LARGE,
    (256, 4096, 4096): LARGE,
    (1, 4096, 4096): {"F.linear": (80, 140), "int8 dynamic": (7, 13)},
    (1, 1024, 1024): {"F.linear": (8, 13)},
}
QUICK_SIZES = {(3, 64, 100): LARGE}


def run(bench: Bench) -> Iterator[Figure]:
    for (m, n, k), goals in (QUICK_SIZES if bench.quick else SIZES).items():
        model, x = layers.linear(k, n), torch.randn(m, k)
        twin = layers.float_layer(model, torch.contiguous_format)
        packed = layers.packed(model, x)
        done = bench.race(
            {
                "lowbit": lambda packed=packed, x=x: packed(x),
                "F.linear": lambda twin=twin, x=x: twin(x),
                "best float": layers.best_float(twin, x),
                "int8 dynamic": layers.int8_dynamic(twin, x),
            }
        )
        for rival in ("F.linear", "best float", "int8 dynamic"):
            must, moonshot = goals.get(rival, (None, None))
            yield Figure(
                f"{m} x {k} to {n}",
                done.ratio(rival, "lowbit"),
                f"x {rival}",
                None if must is None else bench.goal(must),
                None if moonshot is None else bench.goal(moonshot),
                times=done.microseconds(),
            )
