"""What a conversion did, layer by layer."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, overload

from torch import nn


def stored_bytes(module: nn.Module) -> int:
    """Bytes of the tensors in ``module.state_dict()``, each counted once."""
    tensors = {
        id(t): t.numel() * t.element_size()
        for t in module.state_dict(keep_vars=True).values()
        if hasattr(t, "element_size")
    }
    return sum(tensors.values())


@dataclass
class Row:
    """One layer, before and after.

    name          its path in the model
    kind          class of the trained layer
    packed        whether it runs packed
    kernel        the instruction set that it runs on, "oneDNN" or "reference" (plain torch) in
                  int8; "" where there is no choice of one
    bits          planes of weights x planes of inputs; "1x1" for a binary layer, "8x8" in int8
    output        "float", "bits", "int8", or "both" bits and float: what the layer hands on
    folded        what runs inside it: paths of modules, and functions
    bytes_before, bytes_after   of its stored parameters and buffers
    frozen        whether its weight was quantized once, where it is not packed
    why           why it is not packed, or not in int8; or what kept more from being folded
    int8          whether it runs in int8
    """

    name: str
    kind: str
    packed: bool
    bytes_before: int
    bytes_after: int
    kernel: str = ""
    bits: str = ""
    output: str = "float"
    folded: list[str] = field(default_factory=list)
    frozen: bool = False
    why: str = ""
    int8: bool = False


COLUMNS = ("layer", "kind", "kernel", "bits", "out", "bytes", "packed", "folded, or why not")
WIDTH = 120


class Report(Sequence[Row]):
    """The rows of a conversion, a table when printed.

    ``folding``    "" where the model's structure was followed, else why nothing is folded
    ``bytes_before``, ``bytes_after``   of the whole model's ``state_dict``
    """

    def __init__(
        self, rows: Sequence[Row], bytes_before: int, bytes_after: int, folding: str = ""
    ) -> None:
        self.rows = list(rows)
        self.bytes_before = bytes_before
        self.bytes_after = bytes_after
        self.folding = folding

    @overload
    def __getitem__(self, index: int) -> Row: ...
    @overload
    def __getitem__(self, index: slice) -> list[Row]: ...
    def __getitem__(self, index: int | slice) -> Row | list[Row]:
        return self.rows[index]

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[Row]:
        return iter(self.rows)

    def to_dict(self) -> dict[str, Any]:
        """Numbers, strings and lists, as JSON takes them."""
        return {
            "layers": [asdict(row) for row in self.rows],
            "bytes_before": self.bytes_before,
            "bytes_after": self.bytes_after,
            "folding": self.folding,
        }

    def __repr__(self) -> str:
        return f"Report({self._summary()})"

    def _summary(self) -> str:
        """How many of which layers became what."""
        packed = sum(row.packed for row in self.rows)
        int8 = sum(row.int8 for row in self.rows)
        if not int8:
            return f"{packed} of {len(self.rows)} quantized layers packed"
        also = f", {packed} packed" if packed else ""
        return f"{int8} of {len(self.rows)} layers in int8{also}"

    def __str__(self) -> str:
        cells = [COLUMNS, *(_cells(row) for row in self.rows)]
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        widths[-1] = max(20, WIDTH - sum(widths[:-1]) - 2 * (len(widths) - 1))
        lines = [line for row in cells for line in _lines(row, widths)]
        lines.insert(1, "  ".join("-" * width for width in widths))
        lines.append(
            f"{self._summary()}; the model's "
            f"{self.bytes_before:,} bytes become {self.bytes_after:,}"
        )
        if self.folding:
            lines += textwrap.wrap(f"nothing folded: {self.folding}", WIDTH)
        return "\n".join(line.rstrip() for line in lines)


def _cells(row: Row) -> tuple[str, ...]:
    parts = ("frozen" if row.frozen else "", ", ".join(row.folded), row.why)
    last = "; ".join(part for part in parts if part)
    return (
        row.name[-28:],
        row.kind,
        row.kernel or "-",
        row.bits or "-",
        row.output if row.packed or row.int8 else "-",
        f"{row.bytes_before:,}",
        f"{row.bytes_after:,}",
        last,
    )


def _lines(row: Sequence[str], widths: Sequence[int]) -> list[str]:
    """A row of the table; what is too long for its last column goes on below."""
    *parts, last = ["".ljust(width) for width in widths]
    folded = textwrap.wrap(row[-1], len(last)) or [""]
    first = [cell.ljust(width) for cell, width in zip(row[:-1], widths[:-1], strict=True)]
    return ["  ".join([*first, folded[0]]), *("  ".join([*parts, more]) for more in folded[1:])]
