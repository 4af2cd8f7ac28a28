"""Two threads over one, by the fastest times: other work on the machine ruins the rest."""

from __future__ import annotations

import os
from collections.abc import Iterator

import torch

from _bench import layers
from _bench.bench import Bench, maps
from _bench.figure import Figure


def run(bench: Bench) -> Iterator[Figure]:
    if (os.cpu_count() or 1) < 2:
        yield Figure("all", None, "x one thread", note="one core")
        return
    cases = {}
    for name, (channels, size) in maps(bench).items():
        for batch in (1, 8):
            x = torch.randn(batch, channels, size, size)
            x = x.contiguous(memory_format=torch.channels_last)
            cases[f"{name} batch {batch}"] = (layers.conv_norm(channels, channels), x)
    for m, n, k in ((3, 64, 64),) if bench.quick else ((256, 1024, 4096), (256, 4096, 4096)):
        cases[f"linear {m} x {k} to {n}"] = (layers.linear(k, n), torch.randn(m, k))
    for case, (model, x) in cases.items():
        packed = layers.packed(model, x)
        twin = layers.float_layer(model, torch.channels_last)
        runners, before = {}, {}
        for name, module in (("lowbit", packed), ("torch", twin)):
            for threads in (1, 2):
                key = f"{name}, {threads}"
                runners[key] = lambda module=module, x=x: module(x)
                before[key] = lambda threads=threads: torch.set_num_threads(threads)
        try:
            done = bench.race(runners, before)
        finally:
            torch.set_num_threads(bench.threads)
        ours, theirs = (
            done.minimum(f"{name}, 1") / done.minimum(f"{name}, 2") for name in ("lowbit", "torch")
        )
        yield Figure(
            case,
            ours,
            "x one thread",
            None if bench.quick else 1.6,
            None if bench.quick else 1.85,
            note=f"torch {theirs:.2f}",
            times=done.microseconds(),
        )
