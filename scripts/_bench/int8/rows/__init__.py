"""The rows of the table, each a function of a ``Bench`` that yields figures."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from _bench.bench import Bench
from _bench.figure import Figure
from _bench.int8.rows import calls, linear, pieces, recurrent, resnet18, trained

Row = Callable[[Bench], Iterator[Figure]]

ROWS: dict[str, Row] = {
    "resnet18": resnet18.run,
    "trained": trained.run,
    "linear": linear.run,
    "recurrent": recurrent.run,
    "pieces": pieces.run,
    "calls": calls.run,
}
