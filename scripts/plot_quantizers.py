"""Draw every registered quantizer from its own class: value and slope, one gallery image.

    python scripts/plot_quantizers.py
    python scripts/plot_quantizers.py --only sign approx_sign ede --output estimators.png

Each panel is the quantizer as a layer with one channel makes it, after one training batch (so
that learned scales have their first values), at x from -2 to 2. Methods that follow the epoch
are drawn at three quarters of the training, and those that give other values in training than in
evaluation as they are in training.
"""

from __future__ import annotations

import argparse
import math
import os
from pathlib import Path
from typing import NamedTuple

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import torch
from matplotlib.axes import Axes
from torch import Tensor

from lowbit import quantizers

VALUE, SLOPE = "#1f4e9c", "#e07b28"
COLUMNS = 6
POINTS = 801  # odd: 0 is one of them
TALLEST = 3.2
PROGRESS = 0.75


class Curves(NamedTuple):
    """Value and slope of a quantizer at x, its bits in words, whether its values are random."""

    x: Tensor
    value: Tensor
    slope: Tensor
    bits: str
    random: bool


def curves(name: str) -> Curves:
    torch.manual_seed(0)
    quantizer = quantizers.get(name)
    assert quantizer is not None  # only the spec None gives None
    quantizer.bind(1, 0)
    quantizer.double()
    x = torch.linspace(-2, 2, POINTS, dtype=torch.float64).unsqueeze(0)
    with torch.no_grad():
        quantizer(x)  # the first batch
        quantizer.set_progress(PROGRESS)
        in_training = quantizer.value(x)
        random = not quantizer.deterministic
        value = quantizer.eval()(x)
        bits = f"{quantizer.bits} bit" + ("s" if quantizer.bits > 1 else "")
        if quantizer.bits == 32:
            bits = "full precision"
        if not torch.equal(value, in_training):
            value, bits = in_training, f"{bits}, drawn in training"
        return Curves(x[0], value[0], quantizer.slope(x)[0], bits, random)


def draw(axes: Axes, name: str) -> None:
    """One panel. A slope above the panel is cut off, and its peak written down."""
    x, value, slope, bits, random = curves(name)
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
    axes.set_title(f"{name}\n", fontsize=9.5, fontweight="bold", pad=1)
    axes.text(0.5, 1.03, bits, transform=axes.transAxes, ha="center", fontsize=7.5, color="0.4")
    axes.set_xlim(-2, 2)
    axes.set_ylim(-2.2, TALLEST)
    axes.set_xticks([-2, -1, 0, 1, 2])
    axes.set_yticks([-2, -1, 0, 1, 2, 3])
    axes.tick_params(labelsize=7, length=2, color="0.6", labelcolor="0.35")
    for side in axes.spines.values():
        side.set_color("0.8")


def gallery(names: list[str], output: Path) -> None:
    """Write the panels of all names as one image, beside the file and then over it."""
    columns = min(COLUMNS, len(names))
    rows = math.ceil(len(names) / columns)
    figure, grid = plt.subplots(
        rows, columns, figsize=(2.15 * columns, 2.2 * rows + 0.5), squeeze=False,
        sharex=True, sharey=True, layout="constrained",
    )  # fmt: skip
    panels = list(grid.flat)
    for axes, name in zip(panels, names, strict=False):
        draw(axes, name)
    for axes in panels[len(names) :]:
        axes.set_axis_off()
    # Columns that end early keep the labels of their last panel.
    for axes in panels[max(len(names) - columns, 0) : len(names)]:
        axes.tick_params(labelbottom=True)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(
        handles[::-1], labels[::-1], loc="outside upper center", ncols=2, frameon=False, fontsize=9
    )
    output.parent.mkdir(parents=True, exist_ok=True)
    beside = output.with_name(f".{output.stem}.{os.getpid()}{output.suffix}")
    try:
        figure.savefig(beside, dpi=110)
        beside.replace(output)
    finally:
        beside.unlink(missing_ok=True)
        plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("experiments/results/quantizers.png"),
        help="the image to write; its suffix says the format (default: %(default)s)",
    )
    parser.add_argument(
        "--only",
        nargs="+",
        metavar="NAME",
        default=list(quantizers.names()),
        help="draw these quantizers, in this order (default: all registered ones)",
    )
    arguments = parser.parse_args()
    try:
        for name in arguments.only:
            quantizers.get(name)
    except ValueError as error:
        parser.error(str(error))
    gallery(arguments.only, arguments.output)
    print(f"{len(arguments.only)} quantizers drawn in {arguments.output}")


if __name__ == "__main__":
    main()
