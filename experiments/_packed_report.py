"""What ``eval packed=true`` prints and writes of a comparison."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from experiments._packed import Comparison
from experiments._report import byte_count, evaluation, figure
from lowbit.cli._race import times_are

# Reports of so many layers are printed without being asked for.
SHORT = 12


def show(comparison: Comparison, whole: bool) -> None:
    """Print the table of trained, float and packed, and what became of the layers."""
    if comparison.figures is not None:
        Console().print(_table(comparison.figures))
        print(
            "trained: in evaluation, its quantizers in float. float twin: without quantizers.\n"
            f"The three take turns; times are {times_are(comparison.figures['threads'])}."
        )
    else:
        print(f"packed: {comparison.why}")
    if len(comparison.report) and (whole or len(comparison.report) <= SHORT):
        print(f"\n{comparison.report}")
    elif len(comparison.report):
        print("packed=report shows every layer")


def _table(figures: dict[str, Any]) -> Table:
    images, threads = figures["images"], figures["threads"]
    table = Table(
        title=f"packed, {figures['kernel']}, {threads} thread{'s' if threads > 1 else ''}",
        title_justify="left",
    )
    table.add_column("")
    for name in ("trained", "float twin", "packed"):
        table.add_column(name, justify="right")
    right, packed_right = figures["correct"], figures["correct_packed"]
    table.add_row("layers packed", "", "", f"{figures['layers_packed']} of {figures['layers']}")
    table.add_row("test images predicted right", f"{right:,}", "", f"{packed_right:,}")
    table.add_row(
        "accuracy",
        figure("accuracy", right / images),
        "",
        figure("accuracy", packed_right / images),
    )
    table.add_row("predictions that differ", "", "", f"{figures['differing']:,} of {images:,}")
    table.add_row("largest difference of a score", "", "", f"{figures['largest_difference']:.2g}")
    table.add_row("size", byte_count(figures["bytes"]), "", byte_count(figures["bytes_packed"]))
    for batch in figures["speed"]:
        rates = batch["images_per_second"]
        table.add_section()
        table.add_row(
            f"images per second, batch {batch['batch']}",
            *(f"{rates[name]:,.0f}" for name in ("trained", "float", "packed")),
        )
        table.add_row(
            "packed, times as fast", f"{batch['ratio']:.2f}", f"{batch['ratio_float']:.2f}"
        )
    return table


def record(
    checkpoint: Path, metrics: dict[str, float], comparison: Comparison, source: dict[str, Any]
) -> dict[str, Any]:
    """The contents of the JSON file: what ran, where, and what came out."""
    return {
        **evaluation(checkpoint, metrics, source),
        "packed": comparison.figures,
        "why": comparison.why,
        "report": comparison.report.to_dict(),
    }
