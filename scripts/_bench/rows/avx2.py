"""The AVX2 kernels: multiply-adds a cycle."""

from __future__ import annotations

from collections.abc import Iterator

from _bench import ops
from _bench.bench import NO_CLOCK, Bench, maps
from _bench.figure import Figure
from lowbit import kernels

ISA = "avx2"


def run(bench: Bench) -> Iterator[Figure]:
    goals = (bench.goal(230), bench.goal(320))
    if ISA not in kernels.isas():
        yield Figure("all", None, "a cycle", *goals, note=f"no {ISA} kernels here")
        return
    size = (3, 64, 128) if bench.quick else (1024, 1024, 1024)
    cases = {" x ".join(map(str, size)): ops.matrix(*size, isa=ISA)}
    cases |= {name: ops.convolution(*shape, isa=ISA) for name, shape in maps(bench).items()}
    for name, operands in cases.items():
        operands.check()
        done = bench.race({"lowbit": operands.runner(ops.INT)})
        rate = bench.rate(done, "lowbit", ops.products(operands))
        note = NO_CLOCK if rate is None else ""
        yield Figure(name, rate, "a cycle", *goals, note=note, times=done.microseconds())
