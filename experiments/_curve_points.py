"""Learning curves as results keep them: some rows of a run's ``metrics.csv``."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

# Enough for a picture; a thousand epochs would be most of a result's file.
POINTS = 60
KEPT = ("train/accuracy", "train/loss", "val/accuracy", "val/loss")
DIGITS = 4

Columns = Mapping[str, Sequence[float | None]]


def read(path: Path) -> dict[str, list[float | None]] | None:
    """``epoch``, and the columns of ``KEPT`` that are there, at no more than ``POINTS`` epochs.

    The first and the last one are among them. None where there is no such file, or no row in it.
    """
    if not path.is_file():
        return None
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    if not rows:
        return None
    steps = min(POINTS, len(rows)) - 1
    places = [round(i * (len(rows) - 1) / max(steps, 1)) for i in range(steps + 1)]
    columns: dict[str, list[float | None]] = {"epoch": [int(rows[p]["epoch"]) for p in places]}
    for name in KEPT:
        if any(row.get(name) for row in rows):
            columns[name] = [_number(rows[place][name]) for place in places]
    return columns


def rows(columns: Columns) -> list[dict[str, float]]:
    """What ``read`` kept, a mapping for each epoch."""
    return [
        {name: value for name, value in zip(columns, values, strict=True) if value is not None}
        for values in zip(*columns.values(), strict=True)
    ]


def _number(cell: str) -> float | None:
    return float(f"{float(cell):.{DIGITS}g}") if cell else None
