"""3 x 3 convolutions of one image, packed in: share of the prefix coding's ceiling."""

from __future__ import annotations

from collections.abc import Iterator

from _bench import ops
from _bench.bench import NO_CLOCK, PREFIX_CEILING, Bench, maps
from _bench.figure import Figure

GOALS = {
    "64@56": (0.65, 0.80),
    "128@28": (0.72, 0.87),
    "256@14": (0.75, 0.90),
    "512@7": (0.72, 0.90),
}


def run(bench: Bench) -> Iterator[Figure]:
    for name, (channels, size) in maps(bench).items():
        operands = ops.convolution(channels, size)
        operands.check()
        runners = {"float out": operands.runner(ops.FLOAT), "bits out": operands.runner(ops.BITS)}
        done = bench.race(runners)
        must, moonshot = GOALS[name]
        for out in runners:
            rate = bench.rate(done, out, ops.products(operands))
            yield Figure(
                f"{name}, {out}",
                None if rate is None else rate / PREFIX_CEILING,
                f"of {PREFIX_CEILING}",
                bench.goal(must),
                bench.goal(moonshot),
                note=NO_CLOCK if rate is None else f"{rate:.0f} a cycle",
                times=done.microseconds(),
            )
