"""The figure that an experiment is held against: said when a run starts, and set beside ours.

An experiment's ``published`` is a mapping of

    value      the published accuracy, a fraction
    selection  which epoch it is of: one of ``SELECTIONS``
    mark       where it was read: one of ``MARKS``
    source     the text that has it
    accept     [lowest, highest] accuracy of ours that counts as this experiment reproduced

Where nothing is published, an experiment's own ``accept`` is the band of earlier runs of ours.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf

from experiments._app import CONFIGS, Problem
from experiments._numbers import is_number

SELECTIONS = {
    "best": "best epoch on the test set",
    "val": "the epoch that validates best",
    "last": "last epoch",
}
MARKS = {
    "V1": "read in its authors' repository",
    "V1(repro)": "read in a third party's repository, of its own run",
    "V2": "read in another party's text",
    "V3": "read in the paper's abstract",
    "U": "not verified",
}
KEYS = ("value", "selection", "mark", "source", "accept")


def _fraction(number: Any) -> bool:
    return is_number(number) and 0 <= number <= 1


def check(published: DictConfig | None) -> dict[str, Any] | None:
    """The published figure as plain values; a ``Problem`` where it is none."""
    if published is None:
        return None
    given = published
    if isinstance(published, DictConfig):
        given = OmegaConf.to_container(published, resolve=True)
    if not isinstance(given, dict):
        raise Problem(f"published is a mapping of {', '.join(KEYS)}, or null; got {given!r}")
    unknown = [str(key) for key in given if key not in KEYS]
    if unknown:
        raise Problem(f"published has no {unknown[0]!r}; it has {', '.join(KEYS)}")
    if not _fraction(given.get("value")):
        raise Problem(
            f"published.value is an accuracy from 0 to 1 (1.18 % of errors: 0.9882); got "
            f"{given.get('value')!r}"
        )
    for key, known in (("selection", SELECTIONS), ("mark", MARKS)):
        needed = key == "selection"
        if given.get(key) not in known and (needed or key in given):
            words = "; ".join(f"{name}: {meaning}" for name, meaning in known.items())
            raise Problem(f"published.{key} is one of {words}. Got {given.get(key)!r}")
    _check_band("published.accept", given.get("accept"))
    return given  # type: ignore[return-value]


def own_band(accept: ListConfig | None, published: Any) -> list[float] | None:
    """The band of an experiment without a published figure; a ``Problem`` where it is none."""
    if accept is None or published is not None:
        return None
    band = OmegaConf.to_container(accept) if isinstance(accept, ListConfig) else accept
    _check_band("accept", band)
    return band  # type: ignore[return-value]


def _check_band(key: str, band: Any) -> None:
    if band is not None and not (
        isinstance(band, list)
        and len(band) == 2
        and all(map(_fraction, band))
        and band == sorted(band)
    ):
        raise Problem(f"{key} is [lowest, highest] accuracy, 0 to 1; got {band!r}")


def ours(published: Mapping[str, Any], metrics: Mapping[str, float]) -> float | None:
    """Our accuracy beside it: of the last epoch beside a last one, else of our best by validation.

    Ours is never the best on the test set, which would choose by what it is to be judged by.
    """
    which = "_last" if published.get("selection") == "last" else ""
    return metrics.get(f"test/accuracy{which}")


def gap(published: Mapping[str, Any] | None, metrics: Mapping[str, float]) -> float | None:
    """Ours less published; None where one of them is not there."""
    if not published or published.get("value") is None:
        return None
    accuracy = ours(published, metrics)
    return None if accuracy is None else accuracy - published["value"]


def figure(published: Mapping[str, Any]) -> str:
    """``99.23 % (best epoch on the test set; read in …)``."""
    notes = [SELECTIONS[published["selection"]]]
    if "mark" in published:
        notes.append(MARKS[published["mark"]])
    return f"{100 * published['value']:.2f} % ({'; '.join(notes)})"


def opening(name: str) -> list[str]:
    """What the file of an experiment opens with: paper, command, published figure, time.

    Empty where there is no experiment of this name.
    """
    path = CONFIGS / "experiment" / f"{name}.yaml"
    lines = path.read_text().splitlines() if path.is_file() else []
    head: list[str] = []
    for line in lines:
        if line.startswith("# @package"):
            continue
        if not line.startswith("#"):
            break
        head.append(line.removeprefix("#").removeprefix(" "))
    return [line for line in head if line]


def closing(published: Mapping[str, Any] | None, metrics: Mapping[str, float]) -> str | None:
    """The gap in one line, and whether ours is in the accepted band; None without a figure."""
    difference = gap(published, metrics)
    if published is None or difference is None:
        return None
    accuracy = ours(published, metrics)
    assert accuracy is not None
    line = (
        f"published: {figure(published)}; {_ours_in_words(published, metrics, accuracy)}; "
        f"gap: {100 * difference:+.2f} points"
    )
    band = published.get("accept")
    return line if band is None else f"{line}; {_inside(band, accuracy)}"


def closing_of_our_own(band: Sequence[float] | None, metrics: Mapping[str, float]) -> str | None:
    """Ours beside the band of earlier runs of ours; None without one."""
    accuracy = ours({}, metrics)
    if band is None or accuracy is None:
        return None
    return f"{_ours_in_words({}, metrics, accuracy)}; {_inside(band, accuracy)} of earlier runs"


def _ours_in_words(
    published: Mapping[str, Any], metrics: Mapping[str, float], accuracy: float
) -> str:
    last = published.get("selection") == "last" or "val/accuracy" not in metrics
    return f"ours: {100 * accuracy:.2f} % ({'last epoch' if last else 'best by validation'})"


def _inside(band: Sequence[float], accuracy: float) -> str:
    low, high = band
    # A hair of room, so that a figure which prints as the bound is inside.
    inside = low - 1e-9 <= accuracy <= high + 1e-9
    return f"{'inside' if inside else 'OUTSIDE'} {100 * low:.2f} to {100 * high:.2f} %"
