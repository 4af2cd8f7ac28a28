"""The rows of a summary and its totals, as text, table, dictionary and CSV."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, overload

from lowbit._beside import beside
from lowbit.summary import _table


@dataclass(frozen=True)
class Macs:
    """Multiply-adds by the wider of their two operands.

    one_bit   1 bit by 1 bit
    k_bit     up to 7 bits
    int8      8 bits
    float     more, where an operand is not quantized
    """

    one_bit: int = 0
    k_bit: int = 0
    int8: int = 0
    float: int = 0

    @classmethod
    def of(cls, count: int, *bits: int | None) -> Macs:
        """``count`` products of operands with these bits, None for a full-precision one."""
        widest = max(32 if b is None else b for b in bits)
        if widest == 1:
            return cls(one_bit=count)
        if widest < 8:
            return cls(k_bit=count)
        return cls(int8=count) if widest == 8 else cls(float=count)

    @property
    def total(self) -> int:
        return self.one_bit + self.k_bit + self.int8 + self.float

    def __add__(self, other: Macs) -> Macs:
        return Macs(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))


@dataclass
class LayerRow:
    """One layer, or the products of one function on one weight.

    name           its path in the model, "" for the model itself; of a function, the path of
                   its weight
    kind           class of the module; "convolution", "linear" or "matmul" for a function
    input_bits, weight_bits   of the operands of its products, None where there are none
    output         shape of its output in the call, None where it was not called
    calls          how often it was called
    parameters     numbers that were trained, each in the first layer that has it
    numbers        what it computes with: parameters, two numbers a channel of a batch norm
                   without them, and constant kernels
    weights        of the numbers, those that have ``weight_bits``
    bytes          of its tensors in the ``state_dict``
    packed_bytes   of its tensors in that of the converted model; None where that is not known
    nominal_bytes  ``weight_bits`` for each weight, and its own size for each other number
    macs           multiply-adds of the call, by bits
    kernel         what would run it here after ``lowbit.convert``: "xnor" or "planes" (weights x
                   inputs) and the instruction set, "int8", "float torch", "in" another layer;
                   "" where that is not known
    why            why it stays as it is, where it has quantizers or observers
    """

    name: str
    kind: str
    input_bits: int | None = None
    weight_bits: int | None = None
    output: tuple[int, ...] | None = None
    calls: int = 0
    parameters: int = 0
    numbers: int = 0
    weights: int = 0
    bytes: int = 0
    packed_bytes: int | None = None
    nominal_bytes: float = 0
    macs: Macs = field(default_factory=Macs)
    kernel: str = ""
    why: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Flat, with ``macs_one_bit`` and its like; the shape as a list."""
        flat = asdict(self)
        macs = {f"macs_{name}": count for name, count in flat.pop("macs").items()}
        flat["output"] = None if self.output is None else list(self.output)
        last = {name: flat.pop(name) for name in ("kernel", "why")}
        return {**flat, **macs, **last}


class Summary(Sequence[LayerRow]):
    """The rows of a model and their totals; a table when printed.

    ``rows``    a ``LayerRow`` for each layer, in the order of the model
    ``model``   the name of its class
    ``notes``   what the totals leave out, and why
    """

    def __init__(self, model: str, rows: Sequence[LayerRow], notes: Sequence[str] = ()) -> None:
        self.model = model
        self.rows = list(rows)
        self.notes = list(notes)

    @property
    def parameters(self) -> int:
        """Trained numbers, each counted once."""
        return sum(row.parameters for row in self.rows)

    @property
    def numbers(self) -> int:
        """Numbers that it computes with: what larq counts as parameters."""
        return sum(row.numbers for row in self.rows)

    @property
    def macs(self) -> Macs:
        """Multiply-adds of the call, by bits."""
        return sum((row.macs for row in self.rows), Macs())

    @property
    def binary_share(self) -> float:
        """Of all multiply-adds, those of 1 bit by 1 bit; 0 where there are none."""
        macs = self.macs
        return macs.one_bit / macs.total if macs.total else 0.0

    @property
    def operations(self) -> float:
        """Float multiply-adds, and 64 binary ones as one: the "OPs" or "Flops" of the papers.

        k-bit and int8 ones count in full.
        """
        macs = self.macs
        return macs.total - macs.one_bit + macs.one_bit / 64

    @property
    def bytes(self) -> int:
        """Of the model's ``state_dict`` as it is."""
        return sum(row.bytes for row in self.rows)

    @property
    def packed_bytes(self) -> int | None:
        """Of the ``state_dict`` of ``lowbit.convert``'s model; None where there is none."""
        if any(row.packed_bytes is None for row in self.rows):
            return None
        return sum(row.packed_bytes or 0 for row in self.rows)

    @property
    def nominal_bytes(self) -> float:
        """Each weight by its bits, other numbers in full: larq's "model size"."""
        return sum(row.nominal_bytes for row in self.rows)

    @property
    def float_bytes(self) -> int:
        """Four for each number: larq's "float-32 equivalent"."""
        return 4 * self.numbers

    @property
    def compression(self) -> float | None:
        """``float_bytes`` over ``packed_bytes``; None where these are not known or 0."""
        return self.float_bytes / self.packed_bytes if self.packed_bytes else None

    def totals(self) -> dict[str, Any]:
        """All of the above by name."""
        macs = {f"macs_{name}": count for name, count in asdict(self.macs).items()}
        names = ("parameters", "numbers", "bytes", "packed_bytes", "nominal_bytes", "float_bytes")
        ratios = ("compression", "binary_share", "operations")
        return {
            **{name: getattr(self, name) for name in names},
            **macs,
            **{name: getattr(self, name) for name in ratios},
        }

    def as_dict(self) -> dict[str, Any]:
        """Numbers, strings and lists, as JSON takes them."""
        return {
            "model": self.model,
            "layers": [row.as_dict() for row in self.rows],
            "totals": self.totals(),
            "notes": list(self.notes),
        }

    def to_csv(self, path: str | os.PathLike[str] | None = None) -> str:
        """A line for each layer under one of names; also written to ``path`` where given.

        A shape is written as ``1x64x56x56``, and what is not known is left empty.
        """
        text = io.StringIO()
        names = list(LayerRow("", "").as_dict())
        writer = csv.DictWriter(text, names, lineterminator="\n")
        writer.writeheader()
        for row in self.rows:
            cells = row.as_dict()
            writer.writerow(cells | {"output": "x".join(map(str, row.output or ()))})
        if path is not None:
            with beside(Path(path)) as file:
                file.write_text(text.getvalue(), encoding="utf-8", newline="")
        return text.getvalue()

    @overload
    def __getitem__(self, index: int | str) -> LayerRow: ...
    @overload
    def __getitem__(self, index: slice) -> list[LayerRow]: ...
    def __getitem__(self, index: int | str | slice) -> LayerRow | list[LayerRow]:
        """By place, or a layer by its name."""
        if isinstance(index, str):
            for row in self.rows:
                if row.name == index:
                    return row
            raise KeyError(
                f"no layer {index!r}; there are {', '.join(row.name for row in self.rows)}"
            )
        return self.rows[index]

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[LayerRow]:
        return iter(self.rows)

    def __repr__(self) -> str:
        return f"Summary({self.model}, {len(self.rows)} layers, {self.parameters:,} parameters)"

    def __str__(self) -> str:
        return _table.text(self)

    def rich_table(self) -> Any:
        """A ``rich.table.Table``. Raises ``ModuleNotFoundError`` where rich is not installed."""
        return _table.rich(self)

    def __rich__(self) -> Any:
        return self.rich_table()
