"""What int8 does to the logits of a trained ResNet-18: signal over quantization noise."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from _bench.bench import Bench
from _bench.figure import Figure
from _bench.int8.contenders import FLOAT, LOWBIT, made
from _bench.int8.digits import task
from _bench.int8.quality import CLEAR, LEAST_DB, near


def run(bench: Bench) -> Iterator[Figure]:
    work = task(bench.quick, bench.threads)
    here, absent = made(work)
    held_out, labels = work.held_out, work.labels
    with torch.inference_mode():
        expected = here[FLOAT](held_out)()
        logits = {name: make(held_out)() for name, make in here.items() if FLOAT not in name}
    right = (expected.argmax(1) == labels).float().mean()
    for name, ours in logits.items():
        same = (ours.argmax(1) == expected.argmax(1)).float().mean()
        hit = (ours.argmax(1) == labels).float().mean()
        note = f"{hit:.2%} right (float {right:.2%}), {same:.2%} as float, {len(labels)} images"
        must = bench.goal(CLEAR) if name == LOWBIT else None
        yield Figure(f"digits, {name}", near(ours, expected, LEAST_DB, name), "dB", must, note=note)
    for name, reason in absent.items():
        yield Figure(f"digits, {name}", None, "dB", note=reason)
