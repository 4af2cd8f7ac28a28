"""One measured figure beside what it must be."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass
class Figure:
    """``value`` of ``unit`` for one case of a row; ``None`` where it could not be measured.

    ``must`` and ``moonshot`` are what is asked for and what would be splendid; ``smaller`` says
    that less is better. ``times`` are microseconds, as ``Race.microseconds`` gives them.
    """

    case: str
    value: float | None
    unit: str
    must: float | None = None
    moonshot: float | None = None
    smaller: bool = False
    note: str = ""
    times: dict[str, dict[str, float]] = field(default_factory=dict)

    def reaches(self, goal: float | None) -> bool:
        if goal is None or self.value is None:
            return False
        return self.value <= goal if self.smaller else self.value >= goal

    @property
    def short_by(self) -> float | None:
        """Which share of ``must`` is missing; ``None`` where nothing is asked or measured."""
        if self.must is None or self.value is None:
            return None
        missing = self.value / self.must - 1 if self.smaller else 1 - self.value / self.must
        return max(0.0, missing)

    @property
    def verdict(self) -> str:
        if self.value is None:
            return self.note
        if self.reaches(self.moonshot):
            return "moonshot"
        if self.must is None:
            return self.note
        return "met" if self.reaches(self.must) else f"{self.short_by:.1%} short"

    def record(self) -> dict[str, Any]:
        """For JSON."""
        record: dict[str, Any] = {"case": self.case, "value": rounded(self.value)}
        record |= {"unit": self.unit, "must": self.must, "moonshot": self.moonshot}
        if self.must is not None and self.value is not None:
            record |= {"met": self.reaches(self.must), "short_by": rounded(self.short_by)}
        if self.smaller:
            record["smaller_is_better"] = True
        if self.note:
            record["note"] = self.note
        return record | {"microseconds": self.times}


def rounded(value: float | None) -> float | None:
    """To four digits."""
    return None if value is None else float(f"{value:.4g}")
