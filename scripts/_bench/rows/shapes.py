"""Batches of eight, strides of two and 1 x 1 kernels, float in and out, over torch's float."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch

from _bench import layers
from _bench.bench import Bench
from _bench.figure import Figure


class Case(NamedTuple):
    channels: int
    out: int
    size: int
    kernel: int = 3
    stride: int = 1
    batch: int = 1

    def __str__(self) -> str:
        stride = f" stride {self.stride}" if self.stride > 1 else ""
        batch = f" batch {self.batch}" if self.batch > 1 else ""
        kernel = f"{self.kernel} x {self.kernel}"
        return f"{kernel} {self.channels} to {self.out}@{self.size}{stride}{batch}"


CASES = [
    *(Case(c, c, s, batch=8) for c, s in ((64, 56), (128, 28), (256, 14), (512, 7))),
    *(
        Case(c, 2 * c, s, stride=2, batch=b)
        for c, s in ((64, 56), (128, 28), (256, 14))
        for b in (1, 8)
    ),
    *(Case(256, n, 14, kernel=1, batch=b) for n in (256, 512) for b in (1, 8)),
    Case(512, 512, 7, kernel=1),
]
# Without a goal: so few products for each output that storing it is the work.
CASES_WITHOUT_GOAL = [Case(64, 128, 56, kernel=1, batch=b) for b in (1, 8)]
QUICK_CASES = [Case(64, 64, 6, stride=2, batch=2), Case(64, 64, 4, kernel=1)]


def run(bench: Bench) -> Iterator[Figure]:
    for case in QUICK_CASES if bench.quick else CASES + CASES_WITHOUT_GOAL:
        model = layers.conv_norm(case.channels, case.out, case.kernel, case.stride)
        x = torch.randn(case.batch, case.channels, case.size, case.size)
        x = x.contiguous(memory_format=torch.channels_last)
        twin = layers.float_layer(model, torch.channels_last)
        packed = layers.packed(model, x)
        done = bench.race(
            {
                "lowbit": lambda packed=packed, x=x: packed(x),
                "torch": lambda twin=twin, x=x: twin(x),
                "best float": layers.best_float(twin, x),
                "int8": layers.int8_conv(twin, x),
            }
        )
        best, int8 = (done.ratio(rival, "lowbit") for rival in ("best float", "int8"))
        goals = (None, None) if case in CASES_WITHOUT_GOAL else (14, 19)
        yield Figure(
            str(case),
            done.ratio("torch", "lowbit"),
            "x torch",
            *(None if goal is None else bench.goal(goal) for goal in goals),
            note=f"{best:.1f}x best, {int8:.1f}x int8",
            times=done.microseconds(),
        )
