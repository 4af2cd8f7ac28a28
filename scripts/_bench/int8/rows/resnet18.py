"""ResNet-18, 224 x 224: time beside float32, and what int8 does to the logits."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from _bench.bench import Bench
from _bench.figure import Figure
from _bench.int8.contenders import FLOAT, LEGACY, LOWBIT, made
from _bench.int8.quality import CLEAR, LEAST_DB, near
from _bench.int8.resnet import task

BATCHES, QUICK_BATCHES = (1, 8), (1, 2)
# Times float32, times the legacy engine.
FASTER, MOONSHOT, NO_SLOWER = 4.6, 5.7, 1.0


def run(bench: Bench) -> Iterator[Figure]:
    work = task(bench.quick, bench.threads)
    here, absent = made(work)
    held_out = work.held_out
    with torch.inference_mode():
        expected = here[FLOAT](held_out)()
        clear = {
            name: near(make(held_out)(), expected, LEAST_DB, name)
            for name, make in here.items()
            if name != FLOAT
        }
    for batch in QUICK_BATCHES if bench.quick else BATCHES:
        x = held_out[:batch]
        done = bench.race({name: make(x) for name, make in here.items()})
        times = done.microseconds()
        for name in here:
            goals = (FASTER, MOONSHOT) if name == LOWBIT else (None, None)
            yield Figure(
                f"batch {batch}, {name}",
                done.ratio(FLOAT, name),
                "x float32",
                *(None if goal is None else bench.goal(goal) for goal in goals),
                note=f"{1e3 * done.median(name):.2f} ms, least {1e3 * done.minimum(name):.2f}",
                times=times,
            )
        for name, reason in absent.items():
            yield Figure(f"batch {batch}, {name}", None, "x float32", note=reason)
        for rival in here if LOWBIT in here else ():
            if rival not in (FLOAT, LOWBIT):
                must = bench.goal(NO_SLOWER) if rival == LEGACY else None
                yield Figure(
                    f"batch {batch}, {LOWBIT}",
                    done.ratio(rival, LOWBIT),
                    f"x {rival}",
                    must,
                    times=times,
                )
    for name, found in clear.items():
        if FLOAT not in name:
            must = bench.goal(CLEAR) if name == LOWBIT else None
            note = f"{len(held_out)} images"
            yield Figure(f"SQNR, {name}", found, "dB", must, note=note)
