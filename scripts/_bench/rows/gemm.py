"""Binary matrix products, packed in and int32 out: multiply-adds a cycle."""

from __future__ import annotations

from collections.abc import Iterator

from _bench import ops
from _bench.bench import NO_CLOCK, PREFIX_CEILING, XNOR_CEILING, Bench
from _bench.figure import Figure

SIZES = ((1024, 1024, 1024), (2048, 2048, 2048), (256, 1024, 4096), (256, 4096, 4096))
QUICK_SIZES = ((3, 64, 128),)


def run(bench: Bench) -> Iterator[Figure]:
    for m, n, k in QUICK_SIZES if bench.quick else SIZES:
        operands = ops.matrix(m, n, k)
        operands.check()
        done = bench.race({"lowbit": operands.runner(ops.INT)})
        rate = bench.rate(done, "lowbit", m * n * k)
        share = NO_CLOCK if rate is None else of_ceilings(rate)
        yield Figure(
            f"{m} x {n} x {k}",
            rate,
            "a cycle",
            bench.goal(680),
            bench.goal(775),
            note=share,
            times=done.microseconds(),
        )


def of_ceilings(rate: float) -> str:
    xnor, prefix = rate / XNOR_CEILING, rate / PREFIX_CEILING
    return f"{xnor:.0%} of {XNOR_CEILING}, {prefix:.0%} of {PREFIX_CEILING}"
