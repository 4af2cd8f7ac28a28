"""What all pictures share: colours, axes, and how they are written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from lowbit._beside import beside

# Okabe and Ito's colours, told apart by the colour-blind too; their yellow is too pale for lines.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
GREY = "0.55"


def colours(count: int) -> list[str | tuple[float, ...]]:
    """Colours for so many lines; where they are many, a scale from the first to the last."""
    if count <= len(COLOURS):
        return list(COLOURS[:count])
    return [colormaps["viridis"](0.95 * i / (count - 1)) for i in range(count)]


def grid(
    panels: int, columns: int, width: float, height: float, title: str
) -> tuple[Figure, list[Axes]]:
    """A figure with so many panels of width x height inches, in rows of ``columns``."""
    columns = min(columns, panels)
    rows = -(-panels // columns)
    figure = Figure(figsize=(width * columns, height * rows + 0.5), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=10, x=0.01, ha="left")
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    for empty in axes[panels:]:
        empty.set_axis_off()
    return figure, axes[:panels]


def plain(axes: Axes, x: str = "", y: str = "", title: str = "") -> None:
    """Labels and a faint grid."""
    axes.set_xlabel(x, fontsize=8)
    axes.set_ylabel(y, fontsize=8)
    axes.set_title(title, fontsize=8.5)
    axes.tick_params(labelsize=7)
    axes.grid(color="0.9", linewidth=0.6)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def spread_out(items: Sequence[str], most: int) -> list[str]:
    """At most so many of the items, the first, the last, and those evenly between."""
    if len(items) <= most:
        return list(items)
    return [items[round(i * (len(items) - 1) / (most - 1))] for i in range(most)]


def save(figure: Figure, path: Path, metadata: Mapping[str, str] | None = None) -> None:
    """Write a figure beside the file and then over it; ``metadata`` is text kept in the file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with beside(path) as file:
        format = path.suffix.removeprefix(".") or "png"
        figure.savefig(file, format=format, metadata=metadata)
