"""Sign and pack of float tensors, beside a loop that only reads them."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from _bench.bench import NO_CLOCK, Bench
from _bench.figure import Figure
from lowbit.functional.packed_conv import code

# Megabytes of float32; n, c, h, w.
SIZES = {
    "4 MB": (16, 64, 32, 32),
    "16 MB": (16, 256, 32, 32),
    "64 MB": (16, 256, 64, 64),
}
QUICK_SIZES = {"16 kB": (1, 64, 8, 8)}


def run(bench: Bench) -> Iterator[Figure]:
    for name, shape in (QUICK_SIZES if bench.quick else SIZES).items():
        for layout in (torch.channels_last, torch.contiguous_format):
            is_last = layout == torch.channels_last
            case = f"{name}, {'channels_last' if is_last else 'NCHW'}"
            goals = (bench.goal(0.8), None) if is_last else (None, None)
            x = torch.randn(shape).contiguous(memory_format=layout)
            few = x[:1]
            if not torch.equal(
                torch.ops.lowbit.pack(few, None, 1, False, 1), code(few, None, 1, False, 1)
            ):
                raise AssertionError(f"packed signs of {case} are not the specification's")
            if bench.probe is None:
                yield Figure(case, None, "of reading", *goals, note=NO_CLOCK)
                continue
            op = torch.ops.lowbit.pack
            done = bench.race(
                {
                    "lowbit": lambda x=x, op=op: op(x, None, 1, False, 1),
                    "read": bench.probe.read_only(x),
                }
            )
            speed = 4e-9 * x.numel() / done.median("lowbit")
            yield Figure(
                case,
                done.ratio("read", "lowbit"),
                "of reading",
                *goals,
                note=f"{speed:.0f} GB/s",
                times=done.microseconds(),
            )
