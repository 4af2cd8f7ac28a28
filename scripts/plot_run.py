"""Compare runs: their learning curves in one picture, and their figures in a table.

    python scripts/plot_run.py runs/digits_binary/*
    python scripts/plot_run.py multirun/2026-01-31_10-00-00_000000 --output runs/estimators.png

A folder is a run (it has metrics.csv), or holds runs. Runs that differ in nothing but the seed are
one curve: their mean, in a band of one standard deviation. A run that still trains is drawn as far
as it is, and each stage of a run in stages by itself.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from omegaconf import OmegaConf
from rich.markup import escape
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from experiments import _draw, _learning_curves, _report
from experiments.results import read_result, recipe_of

# What decides where files go or what is looked at, not what is trained.
NO_RECIPE = ("callbacks.pictures", "callbacks.curves", "name", "folder")


class Run(NamedTuple):
    """A run's rows of ``metrics.csv``, its recipe in words, and its result if it has ended."""

    folder: Path
    rows: list[dict[str, float]]
    recipe: tuple[str, ...]
    result: dict | None


def folders(given: Sequence[Path]) -> list[Path]:
    """The folders of the runs that were named, or that lie in what was named.

    A run that failed before its first epoch ended has nothing to draw: a note, and no more where
    others were named.
    """
    found: list[Path] = []
    for folder in given:
        inside = sorted(path.parent for path in folder.rglob("metrics.csv"))
        if inside:
            found += inside
        elif folder.is_dir() and _some(given):
            print(f"note: {folder} left out: no metrics.csv, so no epoch ended", file=sys.stderr)
        else:
            raise ValueError(
                f"{folder}: no metrics.csv in it or below it, so it is not the folder of a run "
                "(one is written after the first epoch)"
            )
    return list(dict.fromkeys(found))


def _some(given: Sequence[Path]) -> bool:
    return any(any(folder.rglob("metrics.csv")) for folder in given)


def read(folder: Path) -> Run:
    """One run; ``ValueError`` where ``metrics.csv`` is damaged."""
    path = folder / "metrics.csv"
    try:
        with path.open(newline="") as file:
            rows = [
                {k: float(v) for k, v in row.items() if v != ""} for row in csv.DictReader(file)
            ]
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path} is damaged: {error}") from None
    if not rows or not all("epoch" in row for row in rows):
        raise ValueError(f"{path} is damaged: it has no rows with an epoch")
    # The folder of a stage is in that of its run, which has what Hydra wrote of both.
    own, above = (place / ".hydra" / "hydra.yaml" for place in (folder, folder.parent))
    is_stage = (folder / "stage.json").is_file() or (above.is_file() and not own.is_file())
    ended = folder / ("stage.json" if is_stage else "result.json")
    result = read_result(ended) if ended.is_file() else None
    saved = folder / ".hydra" / "overrides.yaml"
    words: list[str] = []
    if result is not None:
        words = result["overrides"]
    elif saved.is_file():
        words = list(OmegaConf.load(saved))
    kept = [w for w in recipe_of(words) if not w.partition("=")[0].startswith(NO_RECIPE)]
    stage = [f"stage {folder.name}"] if is_stage else []
    name = _experiment(above if is_stage else own, result)
    return Run(folder, rows, (name, *kept, *stage), result)


def _experiment(saved: Path, result: dict | None) -> str:
    if result is not None:
        return str(result["experiment"])
    choices = OmegaConf.load(saved).hydra.runtime.choices if saved.is_file() else {}
    return str(choices.get("experiment") or "custom")


def grouped(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """The runs of each recipe, named by what differs between the recipes."""
    by_recipe: dict[tuple[str, ...], list[Run]] = {}
    for run in runs:
        by_recipe.setdefault(run.recipe, []).append(run)
    common = set.intersection(*(set(recipe) for recipe in by_recipe))
    named = {}
    for recipe, members in by_recipe.items():
        own = [word for word in recipe if word not in common]
        named[" ".join(own) or (recipe[0] if len(by_recipe) == 1 else "as it is")] = members
    return named


def table(groups: dict[str, list[Run]]) -> Table:
    """One line for each group: mean and standard deviation over its runs that have ended."""
    made = Table(title="accuracy: mean ± standard deviation over n runs", title_justify="left")
    made.add_column("", overflow="fold", min_width=26)
    for head in ("n", "epochs", "best val", "test", "last", "seconds"):
        made.add_column(head, justify="right")
    for label, runs in groups.items():
        best = [max(accuracies) for run in runs if (accuracies := _column(run, "val/accuracy"))]
        ended = [run.result for run in runs if run.result is not None]
        test, last = (
            [r["metrics"][name] for r in ended if name in r["metrics"]]
            for name in ("test/accuracy", "test/accuracy_last")
        )
        epochs = sorted({len(run.rows) for run in runs})
        made.add_row(
            escape(label),
            str(len(runs)) + (f" ({len(ended)} ended)" if len(ended) < len(runs) else ""),
            f"{epochs[0]}" if len(epochs) == 1 else f"{epochs[0]} to {epochs[-1]}",
            *(_report.mean_and_spread("accuracy", values) for values in (best, test, last)),
            f"{sum(r['seconds'] for r in ended) / len(ended):.1f}" if ended else "",
        )
    return made


def _column(run: Run, name: str) -> list[float]:
    return [row[name] for row in run.rows if name in row]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "runs", nargs="+", type=Path, metavar="RUN", help="folder of a run, or of several"
    )
    parser.add_argument(
        "--output", type=Path, default=Path("runs.png"),
        help="the image to write; its suffix says the format (default: %(default)s)",
    )  # fmt: skip
    arguments = parser.parse_args()
    try:
        groups = grouped([read(folder) for folder in folders(arguments.runs)])
    except ValueError as error:
        parser.error(str(error))
    curves = {label: [run.rows for run in runs] for label, runs in groups.items()}
    experiments = dict.fromkeys(run.recipe[0] for runs in groups.values() for run in runs)
    figure = _learning_curves.compared(curves, ", ".join(experiments))
    try:
        _draw.save(figure, arguments.output)
    except (OSError, ValueError) as error:
        parser.error(f"--output {arguments.output}: {error}")
    console = _report.wide_console()
    console.print(table(groups))
    console.print(f"curves: {arguments.output}", soft_wrap=True, highlight=False, markup=False)


if __name__ == "__main__":
    main()
