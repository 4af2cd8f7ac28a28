"""Pictures of collected results: learning curves, accuracy against size and work, ablations."""

from __future__ import annotations

import hashlib
import inspect
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator
from PIL import Image

from experiments import _ablation, _curve_points, _draw, _learning_curves

Record = Mapping[str, Any]

# Beyond so many recipes of one experiment, curves are a tangle.
MOST_CURVES = 7
MARKERS = "osD^vP*X<>phd"
FEWEST_TICKS = 3
MOST_TICKS = 8
ROOM = 1.15  # between the outermost errors and the frame
DIGEST = "Digest"


def draw(records: Sequence[Record], folder: Path) -> list[Path]:
    """Write the pictures of all records into ``folder``; the files, drawn now or before.

    A picture of the same figures by the same code stays as it is, on any version of matplotlib.
    """
    drawing = (sys.modules[__name__], _draw, _learning_curves)
    code = "".join(map(inspect.getsource, drawing))
    written = []
    for name, make, figures in _pictures(records):
        path = folder / f"{name}.png"
        text = code + json.dumps(figures, sort_keys=True)
        digest = hashlib.sha256(text.encode()).hexdigest()
        if _digest(path) != digest:
            _draw.save(make(*figures), path, {DIGEST: digest})
        written.append(path)
    return written


def _pictures(records: Sequence[Record]) -> Iterator[tuple[str, Callable[..., Figure], list[Any]]]:
    """File name, what draws it, and with what."""
    usual = [record for record in records if not _ablation.is_ablation(record)]
    points = _points(usual)
    for name, key in (("accuracy_size", "bytes"), ("accuracy_macs", "macs")):
        chosen = [point for point in points if point[key]]
        if chosen:
            yield name, against, [chosen, key]
    for record in records:
        if _ablation.is_ablation(record):
            sides = {role: _ablation.accuracies(record, role) for role in _ablation.OTHER}
            if all(sides.values()):
                yield record["experiment"], ablation, [sides, _ablation.baseline(record)]
    for record in usual:
        lines = _lines(record)
        if 0 < len(lines) <= MOST_CURVES:
            name = record["experiment"]
            yield f"curves_{name}", curves, [name, lines, record["published"]]


def _digest(path: Path) -> str | None:
    if not path.is_file():
        return None
    with Image.open(path) as image:
        return image.info.get(DIGEST)


def label(experiment: str, overrides: Sequence[str]) -> str:
    """The experiment, and its overrides in few letters: ``weight lsq 2`` of a mapping with bits."""
    words = [experiment]
    for override in overrides:
        key, _, value = override.partition("=")
        if key == "start":
            continue
        if value.startswith("{"):
            given = dict(pair.partition(":")[::2] for pair in value.strip("{}").split(","))
            value = " ".join(v.strip() for k, v in given.items() if k.strip() in ("name", "bits"))
        words.append(f"{key.rpartition('.')[2]} {value}")
    return " ".join(words)


def _lines(record: Record) -> dict[str, list[Any]]:
    """Label -> what is kept of the curves of a group's runs, of the groups that have any."""
    lines = {}
    for group in record["groups"]:
        kept = [run["curve"] for run in group["runs"] if run.get("curve")]
        if kept:
            lines[label("", group["overrides"]).strip() or "as configured"] = kept
    return lines


def curves(title: str, lines: Mapping[str, list[Any]], published: Any) -> Figure:
    """Loss and accuracy by epoch, and the published accuracy."""
    groups = {name: [_curve_points.rows(one) for one in kept] for name, kept in lines.items()}
    if not published:
        return _learning_curves.compared(groups, title)
    value = 100 * published["value"]
    title = f"{title}; dashed: published, on the test set, {value:.2f} %"
    figure = _learning_curves.compared(groups, title)
    accuracy = figure.axes[_learning_curves.QUANTITIES.index("accuracy")]
    accuracy.axhline(value, color=_draw.GREY, linewidth=1, linestyle="--")
    return figure


def _points(records: Sequence[Record]) -> list[dict[str, Any]]:
    """One for each group whose network is known."""
    points = []
    for record in records:
        published = record["published"] or {}
        for group in record["groups"]:
            accuracy = group["metrics"].get("test/accuracy")
            if group.get("network") is None or accuracy is None:
                continue
            points.append(
                {
                    "label": label(record["experiment"], group["overrides"]),
                    "data": group["network"]["data"],
                    "bytes": group["runs"][0]["bytes_packed"],
                    "macs": group["network"]["macs"]["one_bit"],
                    "accuracy": accuracy["mean"],
                    "std": accuracy["std"],
                    "published": None if group["overrides"] else published.get("value"),
                }
            )
    return points


def against(points: Sequence[Mapping[str, Any]], key: str) -> Figure:
    """Test accuracy against ``bytes`` or 1-bit ``macs``, a panel for each data set.

    The axis of accuracies is logarithmic in the error.
    """
    sets = sorted({point["data"] for point in points})
    text = {"bytes": "size when packed [kB]", "macs": "1-bit multiply-adds an image [million]"}[key]
    unit = {"bytes": 1e3, "macs": 1e6}[key]
    most = max(sum(point["data"] == name for point in points) for name in sets)
    figure, panels = _draw.grid(
        len(sets), 2, 6.4, max(2.8, 0.6 + 0.21 * most),
        "accuracy on the test set; bars: one standard deviation; hollow: published",
    )  # fmt: skip
    for axes, name in zip(panels, sets, strict=True):
        own = [point for point in points if point["data"] == name]
        palette = _draw.colours(min(len(own), len(_draw.COLOURS)))
        for index, point in enumerate(own):
            _point(axes, point, point[key] / unit, palette[index % len(palette)],
                   MARKERS[index % len(MARKERS)])  # fmt: skip
        _draw.plain(axes, text, "test accuracy [%]", name)
        _cost_axis(axes, [point[key] / unit for point in own])
        _accuracy_axis(axes, [error for point in own for error in _errors(point)])
        axes.legend(fontsize=6.5, frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


def _errors(point: Mapping[str, Any]) -> list[float]:
    """In %: of ours, of the ends of its bar, and of the published figure."""
    error = 100 * (1 - point["accuracy"])
    spread = min(100 * (point["std"] or 0.0), 0.9 * error)  # a logarithm has no room for more
    published = [] if point["published"] is None else [100 * (1 - point["published"])]
    return [error, error - spread, error + spread, *published]


def _point(axes: Axes, point: Mapping[str, Any], x: float, colour: Any, marker: str) -> None:
    error, low, high, *published = _errors(point)
    axes.plot([x, x], [low, high], color=colour, linewidth=1.2)
    axes.plot(x, error, color=colour, marker=marker, markersize=5.5, linestyle="",
              label=point["label"])  # fmt: skip
    for beside in published:
        axes.plot([x, x], [error, beside], color=colour, linewidth=0.8, linestyle=":")
        axes.plot(x, beside, color=colour, marker=marker, markersize=6, fillstyle="none",
                  linestyle="")  # fmt: skip


def _cost_axis(axes: Axes, values: Sequence[float]) -> None:
    axes.set_xscale("log")
    low, high = min(values) / 2, max(values) * 2
    axes.set_xlim(low, high)
    ticks = _round((1, 2, 5), low, high)
    if len(ticks) > MOST_TICKS:
        ticks = _round((1,), low, high)
    axes.xaxis.set_major_locator(FixedLocator(ticks))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))


def _accuracy_axis(axes: Axes, errors: Sequence[float]) -> None:
    """Errors on a logarithmic scale, upside down, written as accuracies."""
    axes.set_yscale("log")
    low, high = max(min(errors), 0.01) / ROOM, min(max(errors) * ROOM, 100)
    axes.set_ylim(high, low)
    ticks = _round((1, 1.5, 2, 3, 5, 7), low, high)
    if len(ticks) < FEWEST_TICKS:
        ticks = [tick for tick in MaxNLocator(5).tick_values(low, high) if low <= tick <= high]
    axes.yaxis.set_major_locator(FixedLocator(ticks))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda error, _: f"{100 - error:.6g}"))


def _round(digits: Sequence[float], low: float, high: float) -> list[float]:
    """The numbers between that have one of these first digits and then zeros."""
    numbers = [digit * 10.0**power for power in range(-4, 7) for digit in digits]
    return [number for number in numbers if low <= number <= high]


def ablation(sides: Mapping[str, Mapping[str, float]], seeds: Sequence[float]) -> Figure:
    """Bars with their values, best on top: quantizers of inputs, and of weights."""
    tallest = max(map(len, sides.values()))
    figure, panels = _draw.grid(
        len(sides), 2, 4.6, 0.8 + 0.22 * tallest,
        "accuracy of the last epoch on the test set [%], one seed each",
    )  # fmt: skip
    highest = max(value for side in sides.values() for value in side.values())
    for axes, (role, side), colour in zip(panels, sides.items(), _draw.COLOURS, strict=False):
        values = [100 * value for value in side.values()]
        bars = axes.barh(list(side), values, color=colour, height=0.75)
        axes.bar_label(bars, [f"{value:.1f}" for value in values], fontsize=7, padding=3)
        if seeds:
            low, high = 100 * min(seeds), 100 * max(seeds)
            text = f"{len(seeds)} seeds of the experiment's own quantizers"
            axes.axvspan(low, high, color="0.8", linewidth=0, zorder=0, label=text)
        _draw.plain(axes, "test accuracy [%]", "", f"quantizer of {role}s")
        axes.set_xlim(0, 100 * highest * 1.12)
        axes.set_ylim(tallest - 0.4, -0.6)
        axes.grid(False)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower left", fontsize=8, frameon=False)
    return figure
