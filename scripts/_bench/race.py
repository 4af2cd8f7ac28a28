"""Times of several functions that take turns, so that a busy machine slows all of them."""

from __future__ import annotations

import statistics
import timeit
from collections.abc import Callable, Mapping

Runner = Callable[[], object]

# One turn lasts at least this long, so that reading the clock and cold caches do not count.
TURN_S = 3e-4
ROUNDS = (9, 151)


class Race:
    """Seconds a call took, for each name in each round."""

    def __init__(self, rounds: list[dict[str, float]]) -> None:
        self.rounds = rounds

    def each(self, value: Callable[[dict[str, float]], float]) -> float:
        """The median over the rounds of what ``value`` makes of the times of one round."""
        return statistics.median(value(times) for times in self.rounds)

    def ratio(self, over: str, under: str) -> float:
        """How many times as long ``over`` takes."""
        return self.each(lambda times: times[over] / times[under])

    def median(self, name: str) -> float:
        return self.each(lambda times: times[name])

    def minimum(self, name: str) -> float:
        return min(times[name] for times in self.rounds)

    def microseconds(self) -> dict[str, dict[str, float]]:
        """Median and minimum of each name, for the record."""
        return {
            name: {
                "median": round(1e6 * self.median(name), 3),
                "min": round(1e6 * self.minimum(name), 3),
            }
            for name in self.rounds[0]
        }


def race(
    runners: Mapping[str, Runner],
    seconds: float,
    before: Mapping[str, Runner] | None = None,
) -> Race:
    """Let the functions take turns for about ``seconds``.

    In its turn a function is called once untimed, and then as often as fills ``TURN_S``. The
    order turns round by one in every round. ``before`` has what is called ahead of a function's
    turn.
    """
    before = before or {}
    names = list(runners)
    timers = {name: timeit.Timer(runners[name]) for name in names}
    calls, round_s = {}, 0.0
    for name in names:
        before.get(name, _nothing)()
        timers[name].timeit(2)
        once = min(timers[name].timeit(1) for _ in range(3))
        calls[name] = max(1, round(TURN_S / max(once, 1e-8)))
        round_s += (calls[name] + 1) * once
    count = min(max(round(seconds / round_s), ROUNDS[0]), ROUNDS[1])
    rounds = []
    for index in range(count):
        start = index % len(names)
        times = {}
        for name in names[start:] + names[:start]:
            before.get(name, _nothing)()
            timers[name].timeit(1)
            times[name] = timers[name].timeit(calls[name]) / calls[name]
        rounds.append({name: times[name] for name in names})
    return Race(rounds)


def _nothing() -> None:
    return None
