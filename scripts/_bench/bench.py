"""How a row is measured: sizes, time, threads and the probe of the processor."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from _bench.probe import Probe, cycles
from _bench.race import Race, Runner, race


@dataclass
class Bench:
    """``seconds`` for each race; ``quick`` takes tiny sizes, to see that a row runs."""

    threads: int = 1
    seconds: float = 1.5
    quick: bool = False
    probe: Probe | None = None

    def race(
        self, runners: Mapping[str, Runner], before: Mapping[str, Runner] | None = None
    ) -> Race:
        """Take turns, the clock's chain among them where there is a probe."""
        clock = {} if self.probe is None else {"clock": self.probe.chain()}
        with torch.inference_mode():
            return race({**runners, **clock}, self.seconds, before)

    def goal(self, figure: float) -> float | None:
        """What a figure must be: goals are for one thread and full sizes."""
        return figure if self.threads == 1 and not self.quick else None

    def rate(self, done: Race, name: str, work: float) -> float | None:
        """``work`` a cycle of one core; None without a probe."""
        if self.probe is None:
            return None
        return done.each(lambda times: work / (times[name] * cycles(times)))


# Of 3 x 3 convolutions in residual networks for 224 x 224: channels and size of the map.
MAPS = {"64@56": (64, 56), "128@28": (128, 28), "256@14": (256, 14), "512@7": (512, 7)}
QUICK_MAPS = {"64@56": (64, 5)}


def maps(bench: Bench) -> dict[str, tuple[int, int]]:
    return QUICK_MAPS if bench.quick else MAPS


# The binary multiply-adds a cycle that three (xor, popcount, add) and two and a half instructions
# (prefix coding) for 512 of them allow where four start in a cycle.
XNOR_CEILING, PREFIX_CEILING = 680, 819
NO_CLOCK = "no C compiler, so no clock"
