"""What a run says when it ends: its metrics, its sizes, and where its files are."""

from __future__ import annotations

import datetime
import math
import os
import shlex
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from torch import nn

import lowbit
from experiments import _checkpoint, _published
from experiments._build import Run
from experiments.provenance import device_name
from experiments.results import read_result, recipe_of
from lowbit.nn import latent_layers

# What is kept of the training's own record, in that of a comparison.
TRAINING = ("command", "seed", "epochs", "commit", "dirty", "torch", "device")


def test_metrics(run: Run) -> dict[str, float]:
    """Validation and test metrics of the weights that the recipe has now."""
    found: list[Mapping[str, float]] = []
    if run.data.val_size > 0:
        found += run.trainer.validate(run.recipe, run.data, verbose=False)
    # None of either where trainer.limit_val_batches or limit_test_batches is 0.
    found += run.trainer.test(run.recipe, run.data, verbose=False)
    return {name: value for metrics in found for name, value in metrics.items()}


def final_metrics(run: Run) -> dict[str, float]:
    """Metrics of the best weights by validation, and under ``…_last`` those of the last."""
    run.trainer.loggers = []  # they would add these figures to the curves of the training
    last = test_metrics(run)
    best = last
    path = getattr(run.trainer.checkpoint_callback, "best_model_path", "")
    run.trainer.strategy.barrier("best checkpoint")
    if path and Path(path).is_file():
        _checkpoint.load_weights(run.recipe, path)
        best = test_metrics(run)
    return best | {f"{name}_last": value for name, value in last.items()}


def sizes(model: nn.Module) -> dict[str, Any]:
    """Parameters, the bits of weights, and bytes: as trained, and with quantized weights packed.

    A packed weight takes the bits of its quantizer; all else, buffers too, stays as it is.
    """
    packed = {
        id(layer.weight): (layer.weight.numel(), layer.weight_quantization.bits)
        for _, layer in latent_layers(model)
        if layer.weight_quantization is not None
    }
    parameters = list(model.parameters())
    tensors = [*parameters, *model.buffers()]
    trained = sum(t.numel() * t.element_size() for t in tensors)
    kept = sum(t.numel() * t.element_size() for t in tensors if id(t) not in packed)
    return {
        "parameters": sum(p.numel() for p in parameters),
        "bits": {
            str(bits): sum(n for n, b in packed.values() if b == bits)
            for bits in sorted({b for _, b in packed.values()})
        },
        "bytes": trained,
        "bytes_packed": kept + sum(math.ceil(n * bits / 8) for n, bits in packed.values()),
    }


def _overrides() -> list[str]:
    """The words of the command line; none where the configuration was made in another way."""
    return list(HydraConfig.get().overrides.task) if HydraConfig.initialized() else []


def result(
    cfg: DictConfig, run: Run, metrics: dict[str, float], source: dict[str, Any], seconds: float
) -> dict[str, Any]:
    """The contents of ``result.json``: what ran, where, and what came out.

    ``source`` is of the start: files may change while a run trains. ``seconds`` are those of
    this process; the ones before a resume are added.
    """
    overrides = _overrides()
    before = getattr(run.trainer.checkpoint_callback, "seconds_before", 0.0)
    return {
        "experiment": cfg.name,
        "command": shlex.join(["python", "-m", "experiments.train", *overrides]),
        "overrides": overrides,
        "seed": cfg.seed,
        **source,
        "torch": torch.__version__,
        "lowbit": lowbit.__version__,
        "device": device_name(run.trainer.strategy.root_device),
        "processes": run.trainer.world_size,
        "threads": torch.get_num_threads(),
        "metrics": metrics,
        "seconds": round(before + seconds, 1),
        "epochs": run.trainer.current_epoch,
        "resumed": run.resume,
        **sizes(run.recipe.model),
        "published": _published.check(cfg.get("published")),
        "accept": _published.own_band(cfg.get("accept"), cfg.get("published")),
        "finished": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def evaluation(
    checkpoint: Path, metrics: dict[str, float], source: dict[str, Any]
) -> dict[str, Any]:
    """What the JSON file of a comparison begins with: what was evaluated, by what, and where.

    ``trained`` is from the ``result.json`` of the checkpoint's run, None where there is none.
    """
    overrides = _overrides()
    run = checkpoint.resolve().parent.parent
    result = read_result(run) if (run / "result.json").is_file() else None
    return {
        "experiment": None if result is None else result["experiment"],
        "command": shlex.join(["python", "-m", "experiments.eval", *overrides]),
        **source,
        "torch": torch.__version__,
        "lowbit": lowbit.__version__,
        "device": device_name(torch.device("cpu")),
        "metrics": metrics,
        "trained": None if result is None else {name: result.get(name) for name in TRAINING},
        "finished": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def figure(name: str, value: float | None) -> str:
    """A metric as it is printed: accuracies in percent."""
    if value is None:
        return ""
    return f"{100 * value:.2f} %" if "accuracy" in name else f"{value:.4f}"


def byte_count(count: int) -> str:
    """A size in thousands or millions of bytes."""
    return f"{count / 1000:,.1f} kB" if count < 1e6 else f"{count / 1e6:,.2f} MB"


def packed_line(packed: dict[str, Any]) -> str:
    """The packed model in one line; ``packed`` is that of ``result.json``."""
    if "images" not in packed:
        return packed.get("why") or packed["error"]
    images, batch = packed["images"], packed["speed"][0]
    same = images - packed["differing"]
    of = "" if images == packed["test_images"] else f" (of {packed['test_images']:,})"
    threads = packed["threads"]
    some = packed["layers_packed"] < packed["layers"]
    layers = f"{packed['layers_packed']} of {packed['layers']} layers, " if some else ""
    return (
        f"{layers}{same:,} of {images:,} test images{of} predicted the same, "
        f"{byte_count(packed['bytes_packed'])} instead of {byte_count(packed['bytes'])}, "
        f"{batch['ratio']:.1f} times the images per second, {batch['ratio_float']:.1f} times the "
        f"float twin's (batch {batch['batch']}, {threads} thread{'s' if threads > 1 else ''}, "
        f"{packed['kernel']})"
    )


def int8_line(int8: dict[str, Any]) -> str:
    """The int8 model in one line; ``int8`` is that of ``result.json``."""
    if "images" not in int8:
        return int8.get("why") or int8["error"]
    images, batch = int8["images"], int8["speed"][0]
    of = "" if images == int8["test_images"] else f" (of {int8['test_images']:,})"
    accuracies = [figure("accuracy", int8[name] / images) for name in ("correct_int8", "correct")]
    return (
        f"{int8['mode']}, {accuracies[0]} of {images:,} test images{of} right instead of "
        f"{accuracies[1]}, {byte_count(int8['bytes_int8'])} instead of "
        f"{byte_count(int8['bytes'])}, {batch['ratio_float']:.1f} times the images per second "
        f"of float (batch {batch['batch']}, {int8['threads']} "
        f"thread{'s' if int8['threads'] > 1 else ''}, {int8['kernel']})"
    )


def announce(cfg: DictConfig) -> None:
    """Print what the experiment reproduces, before it trains: paper, published figure, time.

    What the command line changes of it follows the first line, as the rest is of the experiment.
    """
    head = _published.opening(cfg.name)
    if head:
        changes = recipe_of(_overrides())
        changed = [f"changed    {' '.join(changes)}"] if changes else []
        console = Console()
        for line in (f"{cfg.name}, seed {cfg.seed}: {head[0]}", *changed, *head[1:]):
            console.print(line, soft_wrap=True, highlight=False, markup=False)


def show(result: dict[str, Any], folder: Path) -> None:
    """Print the table that ends a run, the gap to the published figure, and lines on the packed
    and on the int8 model.
    """
    metrics, packed, int8 = (result.get(key) or {} for key in ("metrics", "packed", "int8"))
    table = Table(title=f"{result['experiment']}, seed {result['seed']}", title_justify="left")
    table.add_column("")
    table.add_column("best by validation", justify="right")
    table.add_column("last", justify="right")
    for name, value in metrics.items():
        if not name.endswith("_last"):
            last = metrics.get(f"{name}_last")
            table.add_row(name, figure(name, value), figure(name, last))
    table.add_section()
    bits = [f"{count:,} of {b} bit" for b, count in result["bits"].items()]
    rest = result["parameters"] - sum(result["bits"].values())
    table.add_row("parameters", f"{result['parameters']:,}")
    table.add_row("as", ", ".join([*bits, f"{rest:,} of 32 bit"]))
    table.add_row("size as trained", byte_count(result["bytes"]))
    if "bytes_packed" in packed:
        table.add_row("size when packed", byte_count(packed["bytes_packed"]))
    else:
        table.add_row("size by its weights' bits", byte_count(result["bytes_packed"]))
    table.add_row("time", f"{result['seconds']:.1f} s, {result['epochs']} epochs")
    lines = [f"packed: {packed_line(packed)}"] if packed else []
    beside = _published.closing(result["published"], metrics)
    beside = beside or _published.closing_of_our_own(result.get("accept"), metrics)
    if beside is not None:
        lines.insert(0, beside)
    lines += [f"int8: {int8_line(int8)}"] if int8 else []
    _print(table, folder, *lines)


def sweep_results(folder: Path, since: float = 0.0) -> list[dict[str, Any]]:
    """``result.json`` of the jobs of a sweep that ended since this time, in the jobs' order."""

    def number(path: Path) -> int:
        return OmegaConf.load(path.parent / ".hydra" / "hydra.yaml").hydra.job.num

    ended = [path for path in folder.rglob("result.json") if path.stat().st_mtime >= since]
    return [read_result(path) for path in sorted(ended, key=number)]


def show_sweep(results: list[dict[str, Any]], folder: Path) -> None:
    """Print one line for each job of a sweep: the overrides that differ, and what came out.

    Below them, where seeds differ: mean and standard deviation over the seeds of each recipe.
    """
    jobs = [dict(word.partition("=")[::2] for word in r["overrides"]) for r in results]
    keys = [
        key
        for key in dict.fromkeys(key for job in jobs for key in job)
        if len({job.get(key) for job in jobs}) > 1
    ]
    table = Table(title=f"sweep of {len(results)} jobs", title_justify="left")
    for key in keys:
        table.add_column(escape(key), overflow="fold")
    for name in ("test/accuracy", "last", "seconds"):
        table.add_column(name, justify="right")
    by_recipe: dict[tuple[str, ...], dict[str, dict[str, Any]]] = {}
    for job, result in zip(jobs, results, strict=True):
        recipe = tuple(escape(job.get(key, "")) for key in keys if key != "seed")
        by_recipe.setdefault(recipe, {})[job.get("seed", "")] = result
        table.add_row(*(escape(job.get(key, "")) for key in keys), *_sweep_figures([result]))
    if "seed" in keys:
        table.add_section()
        for recipe, seeds in by_recipe.items():
            words = iter(recipe)
            cells = [f"n = {len(seeds)}" if key == "seed" else next(words) for key in keys]
            table.add_row(*cells, *_sweep_figures(list(seeds.values())))
    _print(table, folder)


def _sweep_figures(results: list[dict[str, Any]]) -> list[str]:
    """Test accuracies and seconds of a job; of several, means, with the accuracies' spread."""
    names = ("test/accuracy", "test/accuracy_last")
    values = [[r["metrics"][name] for r in results if name in r["metrics"]] for name in names]
    cells = [mean_and_spread(name, of_name) for name, of_name in zip(names, values, strict=True)]
    return [*cells, f"{statistics.fmean(r['seconds'] for r in results):.1f}"]


def mean_and_spread(name: str, values: Sequence[float]) -> str:
    """A metric of several runs as it is printed: mean ± standard deviation."""
    if not values:
        return ""
    mean = figure(name, statistics.fmean(values))
    if len(values) == 1:
        return mean
    return f"{mean.removesuffix(' %')} ± {figure(name, statistics.stdev(values))}"


def wide_console() -> Console:
    """A console for tables: a file has room, so that rows of long overrides stay whole there."""
    console = Console()
    return Console(width=max(console.width, 80 if console.is_terminal else 160))


def _print(table: Table, folder: Path, *lines: str) -> None:
    console = wide_console()
    console.print(table)
    for line in lines:
        console.print(line, soft_wrap=True, highlight=False, markup=False)
    console.print(f"files: {os.path.relpath(folder)}", soft_wrap=True, highlight=False)


def show_metrics(metrics: dict[str, float], title: str) -> None:
    """Print metrics alone, as ``eval`` does."""
    table = Table("", "", show_header=False)
    for name, value in metrics.items():
        table.add_row(name, figure(name, value))
    console = Console()
    console.print(title, soft_wrap=True, highlight=False)
    console.print(table if metrics else "no image was tested: trainer.limit_test_batches is 0")
