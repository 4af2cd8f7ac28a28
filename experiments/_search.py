"""What a search chooses from: the words of its command line, with Hydra's sweeps in them.

A sweep may stand inside a mapping, so that a quantizer is searched together with its parameters:
``quantizer.input=choice(sign,{name:swish_sign,beta:tag(log,interval(1,20))})`` asks for ``beta``
only where ``swish_sign`` was chosen.

a,b and choice(a,b)        one of them
range(1,8)                 1, 2, …, 7
interval(1,20)             a float between them
int(interval(1,20))        an integer
tag(log,interval(1,20))    a float, even in its logarithm

A sweep over ``seed`` is none of these: each choice is trained once with every seed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, IntervalSweep, Override, RangeSweep, Sweep


class Chooser(Protocol):
    """The part of ``optuna.Trial`` that is used here."""

    def suggest_categorical(self, name: str, choices: Sequence[str]) -> Any: ...

    def suggest_int(
        self, name: str, low: int, high: int, *, step: int = 1, log: bool = False
    ) -> int: ...

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float: ...


class _First:
    """Chooses the n-th of every choice, over again from the first, and the low end of a range."""

    def __init__(self, n: int) -> None:
        self.n = n
        self.most = 1  # choices that any sweep has

    def suggest_categorical(self, name: str, choices: Sequence[str]) -> Any:
        self.most = max(self.most, len(choices))
        return choices[self.n % len(choices)]

    def suggest_int(self, name: str, low: int, high: int, **options: Any) -> int:
        return low

    def suggest_float(self, name: str, low: float, high: float, **options: Any) -> float:
        return low


@dataclass
class Space:
    """Overrides in their order; those with sweeps are chosen. ``seeds`` are overrides as well."""

    overrides: list[Override]
    seeds: list[str]

    def jobs(self, chooser: Chooser) -> list[list[str]]:
        """The overrides of one choice, once for each seed."""
        chosen = [_chosen(override, chooser) for override in self.overrides]
        return [[*chosen, seed] for seed in self.seeds] if self.seeds else [chosen]

    def examples(self) -> list[list[str]]:
        """Jobs in which every value of every choice occurs, for a check before the search."""
        found: list[list[str]] = []
        n, most = 0, 1
        while n < most:
            chooser = _First(n)
            found.append(self.jobs(chooser)[0])
            most = max(most, chooser.most)
            n += 1
        return found


def read(words: Sequence[str]) -> Space:
    """The space that the words of a command line span."""
    overrides = OverridesParser.create().parse_overrides(list(words))
    last = {override.get_key_element(): override for override in overrides}
    seeds: list[str] = []
    if "seed" in last and last["seed"].is_discrete_sweep():
        seeds = [f"seed={value}" for value in last.pop("seed").sweep_string_iterator()]
    return Space(list(last.values()), seeds)


def _chosen(override: Override, chooser: Chooser) -> str:
    if override.is_delete():
        return str(override.input_line)
    key = override.get_key_element()
    value = _suggest(chooser, key.lstrip("+"), override.value())
    return f"{key}={Override._get_value_element_as_str(value)}"


def _suggest(chooser: Chooser, name: str, value: Any) -> Any:
    """``value`` with its sweeps replaced by what was chosen from them."""
    if isinstance(value, ChoiceSweep):
        words = [_words(element) for element in value.list]
        word = chooser.suggest_categorical(name, words)
        element = value.list[words.index(word)]
        if isinstance(element, Mapping) and "name" in element:
            name = f"{name}.{element['name']}"
        return _suggest(chooser, name, element)
    if isinstance(value, RangeSweep):
        numbers = list(value.range())
        low, high, step = min(numbers), max(numbers), abs(value.step)
        if all(isinstance(number, int) for number in numbers):
            return chooser.suggest_int(name, low, high, step=int(step))
        return chooser.suggest_float(name, low, high, step=float(step))
    if isinstance(value, IntervalSweep):
        log = "log" in value.tags
        if isinstance(value.start, int) and isinstance(value.end, int):
            return chooser.suggest_int(name, value.start, value.end, log=log)
        number = chooser.suggest_float(name, float(value.start), float(value.end), log=log)
        return float(f"{number:.6g}")  # seventeen digits say no more, and are read by people
    if isinstance(value, Mapping):
        return {key: _suggest(chooser, f"{name}.{key}", part) for key, part in value.items()}
    if isinstance(value, list):
        return [_suggest(chooser, f"{name}.{i}", part) for i, part in enumerate(value)]
    return value


def _words(value: Any) -> str:
    """A value as the study shows it: the override's text, a sweep inside it by its ends."""
    if isinstance(value, ChoiceSweep):
        return "|".join(map(_words, value.list))
    if isinstance(value, Sweep):
        end = value.end if isinstance(value, IntervalSweep) else value.stop
        return f"{value.start}..{end}"
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{key}:{_words(part)}" for key, part in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(_words, value)) + "]"
    return Override._get_value_element_as_str(value)
