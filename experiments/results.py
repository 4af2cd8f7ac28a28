"""Results: one file per run, gathered into one per experiment, and a table of all.

Every run leaves ``result.json``; ``scripts/collect_results.py`` calls ``collect``. Comparisons
with packed and int8 networks lie in ``results/packed`` and ``results/int8``, where
``experiments.eval output=…`` writes them.
"""

from __future__ import annotations

import json
import re
import shlex
import statistics
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from experiments import _ablation, _curve_points, _group_choice
from experiments._app import CONFIGS
from experiments._int8_tables import tables as int8_tables
from experiments._published import gap
from lowbit._beside import beside

FOLDER = Path(__file__).resolve().parent / "results"
RESULT = "result.json"

# Overrides that change where or how a run is executed but not what it computes.
ELSEWHERE = (
    "seed", "hydra", "launcher", "sweep", "sweeper", "logger", "data.root", "data.download",
    "threads", "resume", "packed", "int8", "calibration", "qconfig", "compile", "cuda_graph",
    "published",
)  # fmt: skip
# Likewise, but what is in them counts: trainer=gpu does not, trainer.max_epochs does.
ELSEWHERE_AS_A_WHOLE = ("trainer",)

# What is kept of each run, in this order.
KEPT = (
    "seed", "metrics", "seconds", "epochs", "parameters", "bytes", "bytes_packed", "commit",
    "dirty", "torch", "lowbit", "device", "processes", "threads", "finished", "curve",
)  # fmt: skip

# The pictures' folder, in that of the results.
PLOTS = "plots"

PACKED_MODELS = ("trained", "float", "packed")


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with beside(path) as file:
        file.write_text(text)


def write_json(path: Path, value: Any) -> None:
    """Write a value as a JSON file, whole or not at all."""
    _write(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def _write_record(path: Path, record: dict[str, Any]) -> None:
    """Write an experiment's file; a list of numbers is one line of it."""
    text = json.dumps(record, indent=2, ensure_ascii=False)
    text = re.sub(r"\[[^][{}\"]+\]", lambda found: " ".join(found[0].split()), text)
    _write(path, text.replace("[ ", "[").replace(" ]", "]") + "\n")


def write_result(folder: Path, result: dict[str, Any]) -> None:
    """Leave ``result.json`` in a run's folder."""
    write_json(folder / RESULT, result)


def read_result(run: Path) -> dict[str, Any]:
    """The result of a run, given its folder or the file itself."""
    path = run / RESULT if run.is_dir() else run
    if not path.is_file():
        raise ValueError(
            f"{path} is not there: {run} is not the folder of a finished run "
            "(result.json is written when training ends)"
        )
    try:
        result = json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise ValueError(
            f"{path} is damaged ({error}); train again, or leave this run out"
        ) from error
    if not isinstance(result, dict) or "experiment" not in result:
        raise ValueError(
            f"{path} is not the result of a run: it has no 'experiment'; leave this one out"
        )
    return result


def _history(run: Path, result: dict[str, Any]) -> Path:
    """``metrics.csv`` of a run, of its last stage where it has stages."""
    folder = run if run.is_dir() else run.parent
    last = [stage["name"] for stage in result.get("stages") or ()][-1:]
    return folder.joinpath(*last, "metrics.csv")


def recipe_of(overrides: Iterable[str]) -> list[str]:
    """The overrides that say what was trained, sorted; seed, paths and launchers are left out."""
    kept = []
    for override in overrides:
        key = override.partition("=")[0].lstrip("+~").partition("@")[0]
        parts = key.replace("/", ".")
        if (
            key != "experiment"
            and parts not in ELSEWHERE_AS_A_WHOLE
            and not any(parts == name or parts.startswith(f"{name}.") for name in ELSEWHERE)
        ):
            kept.append(override)
    return sorted(kept)


def _group(experiment: str, overrides: list[str], runs: list[dict[str, Any]]) -> dict[str, Any]:
    runs = sorted(runs, key=lambda run: (run["seed"], run["finished"]))
    # "custom" is the name of a run without an experiment, not an experiment to ask for.
    chosen = "~experiment" if experiment == "custom" else f"experiment={experiment}"
    seeds = ",".join(str(run["seed"]) for run in runs)
    sweep = ["-m"] if len(runs) > 1 else []
    metrics = {}
    for name in sorted(set.intersection(*(set(run["metrics"]) for run in runs))):
        values = [run["metrics"][name] for run in runs]
        metrics[name] = {
            "mean": statistics.fmean(values),
            "std": statistics.stdev(values) if len(values) > 1 else None,
            "values": values,
        }
    return {
        "overrides": overrides,
        "command": shlex.join(
            ["python", "-m", "experiments.train", *sweep, chosen, *overrides, f"seed={seeds}"]
        ),
        "n": len(runs),
        "metrics": metrics,
        "runs": [{name: run.get(name) for name in KEPT} for run in runs],
    }


def merge(old: dict[str, Any] | None, results: list[dict[str, Any]]) -> dict[str, Any]:
    """An experiment's file with more results in it; a seed's newest run replaces the others."""
    experiment = results[0]["experiment"]
    by_recipe: dict[tuple[str, ...], dict[int, dict[str, Any]]] = {}
    for group in (old or {}).get("groups", []):
        by_recipe[tuple(group["overrides"])] = {run["seed"]: run for run in group["runs"]}
    for result in results:
        seeds = by_recipe.setdefault(tuple(recipe_of(result["overrides"])), {})
        known = seeds.get(result["seed"])
        if known is None or known["finished"] <= result["finished"]:
            seeds[result["seed"]] = result
    newest = max(results, key=lambda result: result["finished"])
    return {
        "experiment": experiment,
        "published": newest["published"],
        "groups": [
            _group(experiment, list(overrides), list(seeds.values()))
            for overrides, seeds in sorted(by_recipe.items())
        ],
    }


def _with_networks(record: dict[str, Any], old: dict[str, Any] | None) -> dict[str, Any]:
    """The record, with ``network`` in each group: that of ``old``, or else made anew."""
    known = {
        tuple(group["overrides"]): group["network"]
        for group in (old or {}).get("groups", [])
        if "network" in group
    }
    for group in record["groups"]:
        recipe = tuple(group["overrides"])
        if recipe not in known:
            from experiments._network import network

            known[recipe] = network(record["experiment"], recipe)
        group["network"] = known[recipe]
    return record


def _records(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]


def _trial(result: dict[str, Any]) -> str | None:
    """The override that makes a run a trial of the code: made-up data, or ``debug``."""
    for word in result["overrides"]:
        group, _, option = word.lstrip("+").partition("=")
        if group == "debug" and option != "null":
            return word
        if (group, option) == ("data", "synthetic"):
            own = _group_choice.data_of(result["experiment"], CONFIGS)
            return None if own == "synthetic" else word
    return None


def collect(runs: Iterable[Path], folder: Path = FOLDER, allow_dirty: bool = False) -> list[Path]:
    """Gather runs into ``<experiment>.json`` in ``folder``; make pictures and RESULTS.md anew.

    Returns the files of records, pictures and the table. A result from changed files cannot be
    had again: ``ValueError``, unless ``allow_dirty``, which marks it instead.
    """
    from experiments import _plots

    by_experiment: dict[str, list[dict[str, Any]]] = {}
    for run in runs:
        result = read_result(run)
        if result["dirty"] is not False and not allow_dirty:
            what = "files that differ from it" if result["dirty"] else "no commit"
            raise ValueError(
                f"{run}: trained at commit {result['commit']} with {what}; commit and run "
                f"again, or pass --allow-dirty to collect it with a mark"
            )
        trial = _trial(result)
        if trial is not None:
            raise ValueError(
                f"{run}: trained with {trial}, so it is no result of {result['experiment']}; leave "
                "it out, or train without"
            )
        # Measured where the network was packed, else by the bits of its weights.
        measured = (result.get("packed") or {}).get("bytes_packed")
        result["bytes_packed"] = measured or result["bytes_packed"]
        result["curve"] = _curve_points.read(_history(run, result))
        by_experiment.setdefault(result["experiment"], []).append(result)
    written = []
    for experiment, results in sorted(by_experiment.items()):
        path = folder / f"{experiment}.json"
        old = json.loads(path.read_text()) if path.is_file() else None
        _write_record(path, _with_networks(merge(old, results), old))
        written.append(path)
    for record in _records(folder):
        if not all("network" in group for group in record["groups"]):
            _write_record(folder / f"{record['experiment']}.json", _with_networks(record, record))
    pictures = _plots.draw(_records(folder), folder / PLOTS)
    _write(folder / "RESULTS.md", table(folder))
    return [*written, *pictures, folder / "RESULTS.md"]


def _percent(value: float | None, sign: str = "") -> str:
    return "–" if value is None else f"{100 * value:{sign}.2f}"


def _row(experiment: dict[str, Any], group: dict[str, Any]) -> list[str]:
    published = experiment["published"] or {}
    figure = published.get("value")
    metrics = group["metrics"]
    accuracy = metrics.get("test/accuracy", {"mean": None, "std": None})
    last = metrics.get("test/accuracy_last", {"mean": None, "std": None})
    means = {name: metric["mean"] for name, metric in metrics.items()}
    runs = group["runs"]
    seconds = statistics.fmean(run["seconds"] for run in runs)
    commits = sorted({str(run["commit"])[:9] for run in runs})
    mark = " (dirty)" if any(run["dirty"] is not False for run in runs) else ""
    shown = _percent(accuracy["mean"])
    if accuracy["std"] is not None:
        shown += f" ± {_percent(accuracy['std'])}"
    return [
        " ".join([experiment["experiment"], *(f"`{o}`" for o in group["overrides"])]),
        f"{_percent(figure)} ({published['selection']})" if figure is not None else "–",
        shown,
        _percent(last["mean"]),
        _percent(gap(published, means), "+"),
        str(group["n"]),
        ", ".join(sorted({run["device"] for run in runs})),
        f"{seconds:.0f} s",
        ", ".join(commits) + mark,
    ]


def _packed_row(record: dict[str, Any]) -> list[str]:
    packed = record["packed"]
    speeds = [
        " / ".join(f"{speed['images_per_second'][which]:,.0f}" for which in PACKED_MODELS)
        + f" (batch {speed['batch']})"
        for speed in packed["speed"]
    ]
    trained = record["trained"]
    return [
        "a checkpoint" if trained is None else f"{record['experiment']}, seed {trained['seed']}",
        f"{_percent(packed['correct'] / packed['images'])} / "
        f"{_percent(packed['correct_packed'] / packed['images'])}",
        f"{packed['differing']:,} of {packed['images']:,}",
        f"{packed['largest_difference']:.2g}",
        f"{packed['bytes'] / 1000:,.1f} / {packed['bytes_packed'] / 1000:,.1f} kB",
        *speeds,
        f"{record['device']}, {packed['kernel']}, {packed['threads']} thread(s)",
        str(record["commit"])[:9] + ("" if record["dirty"] is False else " (dirty)"),
    ]


def _packed_table(folder: Path) -> list[str]:
    """Lines on the comparisons that ``experiments.eval packed=true output=…`` left in a folder."""
    found = [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]
    records = [record for record in found if record["packed"] is not None]
    if not records:
        return []
    head = ["checkpoint of", "accuracy", "predictions that differ", "largest difference of a score",
            "size", "images per second", "the same", "device", "commit"]  # fmt: skip
    return [
        "",
        "## Packed",
        "",
        "The packed network beside the trained one, on the test set. Images per second: trained /",
        "its float twin without quantizers / packed.",
        "",
        *(
            "| " + " | ".join(row) + " |"
            for row in (head, ["---"] * len(head), *map(_packed_row, records))
        ),
        "",
        *(f"- `{record['command']}`" for record in records),
    ]


def _pictures(folder: Path, experiments: list[str]) -> list[str]:
    """Lines that show the pictures of all experiments, and link those of each."""
    lines = []
    for name, title in (
        ("accuracy_size", "Accuracy against size"),
        ("accuracy_macs", "Accuracy against 1-bit multiply-adds"),
    ):
        if (folder / PLOTS / f"{name}.png").is_file():
            lines += ["", f"## {title}", "", f"![{title}]({PLOTS}/{name}.png)"]
    links = [
        f"[{name}]({PLOTS}/curves_{name}.png)"
        for name in experiments
        if (folder / PLOTS / f"curves_{name}.png").is_file()
    ]
    if links:
        lines += ["", f"Learning curves: {', '.join(links)}."]
    return lines


def table(folder: Path = FOLDER) -> str:
    """RESULTS.md: every collected experiment, published figure beside ours; packed networks."""
    head = ["experiment", "published", "test", "last", "gap", "n", "device", "time", "commit"]
    records = _records(folder)
    ablations = [record for record in records if _ablation.is_ablation(record)]
    experiments = [record for record in records if record not in ablations]
    rows = [_row(experiment, group) for experiment in experiments for group in experiment["groups"]]
    commands = [
        f"- {experiment['experiment']}: `{group['command']}`"
        for experiment in experiments
        for group in experiment["groups"]
    ]
    sources = [
        f"- {experiment['experiment']}: {experiment['published']['source']}"
        for experiment in experiments
        if experiment["published"]
    ]
    lines = [
        "# Results",
        "",
        "Written by `scripts/collect_results.py` from the files beside it; do not edit.",
        "",
        "Accuracies in %. `test`: the epoch that validated best, mean ± standard deviation over n",
        "seeds; `last`: the last epoch. `published` says in brackets which epoch it is of; `gap`",
        "is ours less published, our last against a published last and our `test` otherwise.",
        "`time` is of one run, from start to table.",
        "",
        "Images are held out of the training set to choose an epoch by (`data.val_size`: 5,000 of",
        "CIFAR-10's 50,000), where most papers train on all and choose on the test set:",
        "`data.val_size=0` trains on all, and ours is then the last epoch.",
        "",
        *("| " + " | ".join(row) + " |" for row in (head, ["---"] * len(head), *rows)),
        "",
        "## Commands",
        "",
        *commands,
    ]
    lines += _pictures(folder, [experiment["experiment"] for experiment in experiments])
    for record in ablations:
        lines += _ablation.section(record)
        if (folder / PLOTS / f"{record['experiment']}.png").is_file():
            lines += ["", f"![{record['experiment']}]({PLOTS}/{record['experiment']}.png)"]
    if sources:
        lines += ["", "## Published figures", "", *sources]
    lines += _packed_table(folder / "packed")
    lines += int8_tables(folder / "int8")
    return "\n".join(lines) + "\n"
