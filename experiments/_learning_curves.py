"""Learning curves: of one run, or of several groups of runs beside each other."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from experiments import _draw

Rows = Sequence[Mapping[str, float]]

DATA = {"train": "training", "val": "validation"}
STYLES = {"val": "-", "train": ":"}
QUANTITIES = ("loss", "accuracy")


class Curve(NamedTuple):
    """A metric of a group of runs: epochs from 1, the mean over the runs, and their deviation."""

    epochs: list[int]
    mean: list[float]
    std: list[float] | None


def curve(runs: Sequence[Rows], name: str) -> Curve:
    """The curve of a metric over the epochs that every run has; of one run, without deviation."""
    per_run = [{int(row["epoch"]) + 1: row[name] for row in rows if name in row} for rows in runs]
    epochs = sorted(set.intersection(*(set(values) for values in per_run)))
    values = [[values[epoch] for values in per_run] for epoch in epochs]
    std = [statistics.stdev(v) for v in values] if len(runs) > 1 else None
    return Curve(epochs, [statistics.fmean(v) for v in values], std)


def one_run(rows: Rows, title: str) -> Figure:
    """Loss and accuracy of training and validation, by colour."""
    figure, panels = _draw.grid(len(QUANTITIES), 2, 4.2, 3.0, title)
    for axes, quantity in zip(panels, QUANTITIES, strict=True):
        _axes(axes, quantity)
        for data, colour in zip(DATA, _draw.COLOURS, strict=False):
            drawn = curve([rows], f"{data}/{quantity}")
            if drawn.epochs:
                _line(axes, drawn, quantity, colour, "-", DATA[data])
        if axes.lines:
            axes.legend(fontsize=8, frameon=False)
    return figure


def compared(groups: Mapping[str, Sequence[Rows]], title: str) -> Figure:
    """Loss and accuracy of each group, by colour: validation drawn through, training dotted.

    Of a group of several runs the mean is drawn, in a band of one standard deviation.
    """
    figure, panels = _draw.grid(len(QUANTITIES), 2, 5.0, 3.6, title)
    chosen = dict(zip(groups, _draw.colours(len(groups)), strict=True))
    present = set()
    for axes, quantity in zip(panels, QUANTITIES, strict=True):
        _axes(axes, quantity)
        for label, runs in groups.items():
            for data, style in STYLES.items():
                drawn = curve(runs, f"{data}/{quantity}")
                if drawn.epochs:
                    present.add(data)
                    _line(axes, drawn, quantity, chosen[label], style)
    lines = [
        Line2D([], [], color=colour, label=label + _count(groups[label]))
        for label, colour in chosen.items()
    ]
    lines += [
        Line2D([], [], color=_draw.GREY, linestyle=style, label=DATA[data])
        for data, style in STYLES.items()
        if data in present
    ]
    figure.legend(handles=lines, loc="outside lower left", ncols=2, fontsize=8, frameon=False)
    return figure


def _count(runs: Sequence[Rows]) -> str:
    return f" (n = {len(runs)})" if len(runs) > 1 else ""


def _axes(axes: Axes, quantity: str) -> None:
    _draw.plain(axes, "epoch", "accuracy [%]" if quantity == "accuracy" else quantity)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def _line(
    axes: Axes,
    drawn: Curve,
    quantity: str,
    colour: str | tuple[float, ...],
    style: str,
    label: str | None = None,
) -> None:
    times = 100 if quantity == "accuracy" else 1
    mean = [times * value for value in drawn.mean]
    # A single epoch is a point, which a line would not show.
    marker = "o" if len(mean) == 1 else None
    axes.plot(
        drawn.epochs, mean, color=colour, linestyle=style, linewidth=1.4, marker=marker, label=label
    )
    if drawn.std is not None:
        low = [m - times * s for m, s in zip(mean, drawn.std, strict=True)]
        high = [m + times * s for m, s in zip(mean, drawn.std, strict=True)]
        axes.fill_between(drawn.epochs, low, high, color=colour, alpha=0.15, linewidth=0)
