"""Quantizers drawn with matplotlib: value and slope, a panel each."""

from __future__ import annotations

import importlib
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lowbit.cli._curves import curves
from lowbit.cli._optional import package
from lowbit.quantizers import Spec

VALUE, SLOPE = "#1f4e9c", "#e07b28"
PANELS = 6
TALLEST = 3.2
NARROWEST = 3.6  # inches: the legend's


def draw(axes: Any, spec: Spec) -> None:
    """One panel. A slope above the panel is cut off, and its peak written down."""
    x, value, slope, bits, random = curves(spec)
    axes.axhline(0, color="0.85", linewidth=0.8, zorder=0)
    axes.axvline(0, color="0.85", linewidth=0.8, zorder=0)
    axes.fill_between(x, slope, color=SLOPE, alpha=0.15, linewidth=0)
    axes.plot(x, slope, color=SLOPE, linewidth=1.2, label="slope (pretended derivative)")
    if random:
        axes.plot(x, value, "|", color=VALUE, markersize=5, markeredgewidth=0.4, label="value")
    else:
        # Values jump: steps are drawn upright, not slanted from one point to the next.
        axes.step(x, value, where="mid", color=VALUE, linewidth=1.5, label="value")
    peak = float(slope.max())
    if peak > TALLEST:
        axes.text(0.03, 0.95, f"slope up to {peak:.3g}", transform=axes.transAxes, va="top",
                  fontsize=7, color=SLOPE)  # fmt: skip
    axes.set_title(f"{title(spec)}\n", fontsize=9.5, fontweight="bold", pad=1)
    axes.text(0.5, 1.03, bits, transform=axes.transAxes, ha="center", fontsize=7.5, color="0.4")
    axes.set_xlim(-2, 2)
    axes.set_ylim(-2.2, TALLEST)
    axes.set_xticks([-2, -1, 0, 1, 2])
    axes.set_yticks([-2, -1, 0, 1, 2, 3])
    axes.tick_params(labelsize=7, length=2, color="0.6", labelcolor="0.35")
    for side in axes.spines.values():
        side.set_color("0.8")


def title(spec: Spec) -> str:
    """A quantizer's name, with the arguments that are given."""
    if not isinstance(spec, Mapping):
        return str(spec)
    arguments = [f"{key}={value}" for key, value in spec.items() if key != "name"]
    return ", ".join([str(spec["name"]), *arguments])


def gallery(specs: Sequence[Spec], output: Path, dpi: int = 110) -> None:
    """Write the panels of all quantizers as one image, beside the file and then over it."""
    matplotlib = package("matplotlib", "a plot")
    matplotlib.use("Agg")
    plt = importlib.import_module("matplotlib.pyplot")
    columns = min(PANELS, len(specs))
    rows = math.ceil(len(specs) / columns)
    figure, grid = plt.subplots(
        rows, columns, figsize=(max(2.15 * columns, NARROWEST), 2.2 * rows + 0.5), squeeze=False,
        sharex=True, sharey=True, layout="constrained",
    )  # fmt: skip
    panels = list(grid.flat)
    for axes, spec in zip(panels, specs, strict=False):
        draw(axes, spec)
    for axes in panels[len(specs) :]:
        axes.set_axis_off()
    # Columns that end early keep the labels of their last panel.
    for axes in panels[max(len(specs) - columns, 0) : len(specs)]:
        axes.tick_params(labelbottom=True)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(
        handles[::-1], labels[::-1], loc="outside upper center", ncols=2, frameon=False, fontsize=9
    )
    output.parent.mkdir(parents=True, exist_ok=True)
    beside = output.with_name(f".{output.stem}.{os.getpid()}{output.suffix}")
    try:
        figure.savefig(beside, dpi=dpi)
        beside.replace(output)
    finally:
        beside.unlink(missing_ok=True)
        plt.close(figure)
