"""What ``int8=…`` prints and writes of a comparison."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from omegaconf import DictConfig
from rich.console import Console
from rich.table import Table

from experiments._build import quantization
from experiments._int8 import Comparison
from experiments._report import byte_count, evaluation, figure
from lowbit import quantizers
from lowbit.cli._race import times_are


def show(comparison: Comparison) -> None:
    """Print the table of trained, float and int8, and what became of the layers."""
    Console().print(_table(comparison.figures))
    print(
        "trained: in evaluation, its quantizers in float. float: without quantizers, in\n"
        "channels-last. The three take turns; times are "
        f"{times_are(comparison.figures['threads'])}."
    )
    if comparison.report is not None:
        print(f"\n{comparison.report}")


def _table(figures: dict[str, Any]) -> Table:
    images, threads = figures["images"], figures["threads"]
    table = Table(
        title=f"int8 {figures['mode']}, {figures['kernel']}, "
        f"{threads} thread{'s' if threads > 1 else ''}",
        title_justify="left",
    )
    table.add_column("")
    for name in ("trained", "float", "int8"):
        table.add_column(name, justify="right")
    right, int8_right = figures["correct"], figures["correct_int8"]
    table.add_row("test images predicted right", f"{right:,}", "", f"{int8_right:,}")
    table.add_row(
        "accuracy",
        figure("accuracy", right / images),
        "",
        figure("accuracy", int8_right / images),
    )
    table.add_row("predictions that differ", "", "", f"{figures['differing']:,} of {images:,}")
    table.add_row("largest difference of a score", "", "", f"{figures['largest_difference']:.2g}")
    table.add_row("size", "", byte_count(figures["bytes"]), byte_count(figures["bytes_int8"]))
    for batch in figures["speed"]:
        rates = batch["images_per_second"]
        table.add_section()
        table.add_row(
            f"images per second, batch {batch['batch']}",
            *(f"{rates[name]:,.0f}" for name in ("trained", "float", "int8")),
        )
        table.add_row("int8, times as fast", f"{batch['ratio']:.2f}", f"{batch['ratio_float']:.2f}")
    return table


def record(
    cfg: DictConfig,
    trained: DictConfig,
    metrics: dict[str, float],
    comparison: Comparison,
    source: dict[str, Any],
) -> dict[str, Any]:
    """The contents of the JSON file: what ran, where, and what came out.

    ``quantizer``, their ``bits`` and ``start``, the float checkpoint, are those that a model of
    qat trained with.
    """
    own: dict[str, Any] = {}
    if comparison.figures["mode"] == "qat":
        given = quantization(trained)
        own["quantizer"] = {role: given[f"{role}_quantization"] for role in ("weight", "input")}
        own["bits"] = {role: quantizers.get(q).bits for role, q in own["quantizer"].items()}
        own["start"] = trained.get("start")
    report = comparison.report
    return {
        **evaluation(Path(cfg.checkpoint), metrics, source),
        "checkpoint": str(cfg.checkpoint),
        **own,
        "int8": comparison.figures,
        "report": None if report is None else report.to_dict(),
    }
