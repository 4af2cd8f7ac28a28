"""A summary as columns: plain text, or a table of rich."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from lowbit.summary._result import LayerRow, Macs, Summary

MIB = 2**20
NAME = 36
MACS = {"one_bit": "1-bit", "k_bit": "k-bit", "int8": "int8", "float": "float"}


class Table(NamedTuple):
    """Cells of text: the heads, the rows, the totals; and the lines that stand under them."""

    heads: list[str]
    rows: list[list[str]]
    total: list[str]
    lines: list[str]


# The columns of text; numbers stand right.
LEFT = ("layer", "kind", "output", "kernel")


def table(summary: Summary) -> Table:
    """Heads and cells; kinds of multiply-adds that the model has none of are left out."""
    all_macs = summary.macs
    kinds = [kind for kind in MACS if getattr(all_macs, kind)] or ["float"]
    heads = ["layer", "kind", "in", "w", "output", "params", "bytes", "packed"]
    heads += [f"{MACS[kind]} MACs" for kind in kinds] + ["kernel"]
    rows = [_cells(row, kinds) for row in summary]
    total = ["total", "", "", "", "", f"{summary.parameters:,}", f"{summary.bytes:,}"]
    total += [_number(summary.packed_bytes), *_macs(all_macs, kinds), ""]
    return Table(heads, rows, total, _lines(summary))


def _cells(row: LayerRow, kinds: list[str]) -> list[str]:
    name = row.name or "(model)"
    return [
        name if len(name) <= NAME else "…" + name[1 - NAME :],
        row.kind,
        _number(row.input_bits),
        _number(row.weight_bits),
        "-" if row.output is None else "x".join(map(str, row.output)) or "1",
        f"{row.parameters:,}",
        f"{row.bytes:,}",
        _number(row.packed_bytes),
        *_macs(row.macs, kinds),
        row.kernel or "-",
    ]


def _macs(macs: Macs, kinds: list[str]) -> list[str]:
    return [f"{count:,}" if (count := getattr(macs, kind)) else "-" for kind in kinds]


def _number(value: int | None) -> str:
    return "-" if value is None else f"{value:,}"


def _lines(summary: Summary) -> list[str]:
    macs = summary.macs
    lines = [
        f"{summary.model}: {summary.numbers:,} numbers, {macs.total:,} multiply-adds a call, "
        f"of which {100 * summary.binary_share:.2f} % are binary"
    ]
    sizes = (
        f"{summary.bytes / MIB:.2f} MiB as it is; {summary.nominal_bytes / MIB:.2f} MiB by the "
        f"bits of its weights; {summary.float_bytes / MIB:.2f} MiB in float32"
    )
    if summary.packed_bytes is not None and summary.compression is not None:
        sizes += (
            f"; {summary.packed_bytes / MIB:.2f} MiB converted, {summary.compression:.1f} times "
            "less than in float32"
        )
    lines.append(sizes)
    stays: dict[str, list[str]] = {}
    for row in summary:
        if row.why:
            stays.setdefault(row.why, []).append(row.name or "(model)")
    for why, names in stays.items():
        shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
        lines.append(f"stays as it is: {shown}: {why}")
    return lines + list(summary.notes)


def text(summary: Summary) -> str:
    """Aligned columns, the totals, and what is to be said of them."""
    heads, rows, total, lines = table(summary)
    widths = [max(map(len, column)) for column in zip(heads, *rows, total, strict=True)]

    def line(cells: list[str]) -> str:
        padded = (
            cell.ljust(width) if head in LEFT else cell.rjust(width)
            for cell, width, head in zip(cells, widths, heads, strict=True)
        )
        return "  ".join(padded).rstrip()

    rule = "  ".join("-" * width for width in widths)
    return "\n".join([line(heads), rule, *map(line, rows), rule, line(total), *lines])


def rich(summary: Summary) -> Any:
    """A ``rich.table.Table`` of the same cells."""
    try:
        module, box = importlib.import_module("rich.table"), importlib.import_module("rich.box")
        escape = importlib.import_module("rich.markup").escape
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "rich is not installed: pip install rich; str(summary) needs nothing", name="rich"
        ) from error
    heads, rows, total, lines = table(summary)
    made = module.Table(
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        pad_edge=False,
        show_footer=True,
        caption=escape("\n".join(lines)),
        caption_justify="left",
    )
    for head, last in zip(heads, total, strict=True):
        if head in LEFT:  # in a narrow terminal these wrap, and numbers stay whole
            made.add_column(head, last, overflow="fold")
        else:
            made.add_column(head, last, justify="right", no_wrap=True)
    for row in rows:
        made.add_row(*map(escape, row))
    return made
