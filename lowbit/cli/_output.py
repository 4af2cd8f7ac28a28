"""What commands print: aligned text, or tables of rich on a terminal; JSON."""

from __future__ import annotations

import importlib
import json
import re
import shutil
import sys
import textwrap
from collections.abc import Sequence
from typing import Any

from lowbit.cli._optional import installed

NUMBER = re.compile(r"-?[\d,]*\.?\d+(e-?\d+)?( ?[%a-zA-Z]{1,2})?|-?")
GAP = "  "
WIDEST = 1000


def in_colour() -> bool:
    """Whether tables are printed by rich: on a terminal, where it is installed."""
    return sys.stdout.isatty() and installed("rich")


def print_rich(renderable: Any) -> None:
    """Print what rich can draw."""
    importlib.import_module("rich.console").Console().print(renderable)


def fits(renderable: Any) -> bool:
    """Whether the terminal is as wide as what rich can draw, so that no cell is folded."""
    console = importlib.import_module("rich.console").Console()
    wanted = console.measure(renderable, options=console.options.update(width=WIDEST)).maximum
    return wanted <= console.width


def print_table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Print rows under column titles; columns of numbers are aligned at the right."""
    cells = [["" if cell is None else str(cell) for cell in row] for row in rows]
    right = [
        bool(cells) and all(NUMBER.fullmatch(row[i]) for row in cells) for i in range(len(columns))
    ]
    if in_colour():
        table = importlib.import_module("rich.table").Table()
        escape = importlib.import_module("rich.markup").escape
        for name, is_right in zip(columns, right, strict=True):
            table.add_column(name, justify="right" if is_right else "left")
        for row in cells:
            table.add_row(*map(escape, row))
        print_rich(table)
        return
    print("\n".join(text_table(columns, cells, right, _width())))


def text_table(
    columns: Sequence[str], cells: Sequence[Sequence[str]], right: Sequence[bool], width: int
) -> list[str]:
    """The lines of a table; the last column is folded where it would be wider than ``width``."""
    widths = [max(map(len, column)) for column in zip(columns, *cells, strict=True)]
    before = sum(widths[:-1]) + len(GAP) * (len(widths) - 1)
    last = max(width - before, 24)
    lines = []
    for row in (columns, ["-" * min(w, last) for w in widths], *cells):
        parts = [
            cell.rjust(w) if is_right else cell.ljust(w)
            for cell, w, is_right in zip(row[:-1], widths[:-1], right[:-1], strict=True)
        ]
        folded = textwrap.wrap(row[-1], last) or [""]
        if right[-1]:
            folded[0] = folded[0].rjust(min(widths[-1], last))
        lines.append(GAP.join([*parts, folded[0]]).rstrip())
        lines += [" " * before + part for part in folded[1:]]
    return lines


def _width() -> int:
    """Columns of the terminal; where there is none, 120."""
    return shutil.get_terminal_size((120, 24)).columns


def print_json(value: Any) -> None:
    """Print a value as JSON, numbers that JSON lacks as null."""
    print(json.dumps(_finite(value), indent=2, ensure_ascii=False))


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(one) for one in value]
    if isinstance(value, float) and (value != value or abs(value) == float("inf")):
        return None
    return value
