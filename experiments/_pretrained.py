"""Trained networks kept in the repository: packed, with what trained them and what they scored."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.table import Table
from torch import nn

import lowbit
from experiments import _build, _packed, _published
from experiments._app import Problem
from experiments._report import byte_count, figure, wide_console
from experiments.results import read_result, recipe_of
from lowbit.files import PackedInfo, packed_info

FOLDER = Path(__file__).resolve().parent / "pretrained"
LARGEST = 1_000_000  # bytes of a file: they are in everybody's clone

# What is kept of a training's configuration. Nothing of it names a folder of that machine.
TRAINING = (
    "seed", "data", "model", "quantizer", "spread", "recipe", "optimizer", "scheduler", "trainer",
)  # fmt: skip
ROOT = "${oc.env:LOWBIT_DATA,data}"

# What is kept of its result.
RESULT = (
    "experiment", "seed", "epochs", "published", "commit", "dirty", "torch", "lowbit", "device",
    "finished",
)  # fmt: skip


def names() -> list[str]:
    """The networks that are kept."""
    return sorted(path.stem for path in FOLDER.glob("*.safetensors"))


def _path(name: str) -> Path:
    if not re.fullmatch(r"\w[\w.-]*", name):
        raise Problem(f"save={name}: a name of letters, digits, _, - and .")
    return FOLDER / f"{name}.safetensors"


def save(name: str, checkpoint: Path, trained: DictConfig, run: _build.Run) -> Path:
    """Pack the network of a finished run, and keep it as ``name``; the file.

    ``run`` has its weights. A ``Problem`` where nothing packs, where the result of the run is
    not beside the checkpoint, and where the file would be larger than ``LARGEST``.
    """
    path = _path(name)
    folder = checkpoint.resolve().parent.parent
    if not (folder / "result.json").is_file():
        raise Problem(f"save={name}: {folder} has no result.json; a run that has ended leaves one")
    result = read_result(folder)
    model = run.recipe.model
    assert isinstance(model, nn.Module)
    model = model.cpu().eval()
    run.data.setup("test")
    loader = run.data.test_dataloader()
    images, _ = _packed.ready(model, next(iter(loader)))
    packed, report = lowbit.convert(model, example=images[:2])
    if not any(row.packed for row in report):
        raise Problem(f"save={name}: {_packed.why_nothing(report)}")
    if report.bytes_after > LARGEST:
        raise Problem(
            f"save={name}: {byte_count(report.bytes_after)} when packed, more than the "
            f"{byte_count(LARGEST)} that the repository keeps; python -m lowbit convert writes "
            "it elsewhere"
        )
    config = {
        **_build.description(trained, run.recipe, run.data),
        "experiment": result["experiment"],
        "training": _training(trained),
    }
    metadata = {
        **{key: result.get(key) for key in RESULT},
        "overrides": recipe_of(result["overrides"]),
        "test": _packed.agreement(model, packed, loader),
    }
    path.parent.mkdir(exist_ok=True)
    return lowbit.save_packed(packed, path, config, metadata)


def _training(trained: DictConfig) -> dict[str, Any]:
    kept = OmegaConf.to_container(OmegaConf.masked_copy(trained, list(TRAINING)))
    assert isinstance(kept, dict)
    kept["recipe"].pop("teacher", None)
    if "root" in kept["data"]:
        kept["data"]["root"] = ROOT
    return kept


def evaluate(name: str, cfg: DictConfig) -> dict[str, float]:
    """Test a kept network on its test set, and print its figure beside the recorded one.

    Returns ``test/accuracy`` and ``test/correct``, how many images of ``test/images`` were
    predicted right, and ``recorded/correct``.
    """
    path = FOLDER / f"{name}.safetensors"
    if name not in names():
        raise Problem(
            f"no pretrained network named {name!r}; there are {', '.join(names())} "
            "(pretrained=list shows them)"
        )
    start = time.perf_counter()
    _build.quiet()
    if cfg.threads is not None:
        _build.check_whole("threads", cfg.threads, 1)
        torch.set_num_threads(cfg.threads)
    info = packed_info(path)
    training = OmegaConf.merge(info.config["training"], {"data": cfg.data})
    assert isinstance(training, DictConfig)
    data = _build.make_data(training)
    data.setup("test")
    images, correct = _count(lowbit.load_packed(path), data.test_dataloader())
    _show(path, info, images, correct, time.perf_counter() - start)
    return {
        "test/accuracy": correct / images,
        "test/correct": correct,
        "test/images": images,
        "recorded/correct": info.metadata["test"]["correct_packed"],
    }


def _count(model: nn.Module, loader: Any) -> tuple[int, int]:
    """How many images a loader has, and how many of them are predicted right."""
    images = correct = 0
    with torch.inference_mode():
        for batch in loader:
            pixels, labels = _packed.ready(model, batch)
            images += len(pixels)
            correct += int((model(pixels).argmax(1) == labels).sum())
    return images, correct


def _show(path: Path, info: PackedInfo, images: int, correct: int, seconds: float) -> None:
    recorded = info.metadata["test"]["correct_packed"]
    table = Table(title=f"{path.stem}, packed, {byte_count(path.stat().st_size)}")
    table.title_justify = "left"
    for column in ("", "accuracy", "right"):
        table.add_column(column, justify="right" if column else "left")
    for row, count in (("now", correct), ("recorded", recorded)):
        table.add_row(row, figure("accuracy", count / images), f"{count:,} of {images:,}")
    published = info.metadata["published"]
    if published:
        table.add_row("published", figure("accuracy", published["value"]), "")
    console = Console()
    console.print(table)
    same = "the same" if correct == recorded else f"DIFFERENT by {correct - recorded:+,} images"
    lines = [
        f"now and recorded: {same}; {seconds:.1f} s with the data",
        f"trained: {_trained(info)}",
    ]
    if published:
        lines.append(f"published: {_published.figure(published)}, {published['source']}")
    for line in lines:
        console.print(line, soft_wrap=True, highlight=False, markup=False)


def _trained(info: PackedInfo) -> str:
    """How to have it again, and of what it is."""
    made = info.metadata
    words = [f"experiment={made['experiment']}", *made["overrides"], f"seed={made['seed']}"]
    commit = str(made["commit"])[:9] + ("" if made["dirty"] is False else " (dirty)")
    return f"python -m experiments.train {' '.join(words)}, {made['epochs']} epochs, {commit}"


def show_all() -> None:
    """Print the networks that are kept."""
    table = Table(title="pretrained=NAME", title_justify="left")
    for column in ("name", "network", "data", "accuracy", "published", "size"):
        left = column in ("name", "network", "data")
        table.add_column(column, justify="left" if left else "right", overflow="fold")
    for name in names():
        path = FOLDER / f"{name}.safetensors"
        info = packed_info(path)
        test, published = info.metadata["test"], info.metadata["published"]
        table.add_row(
            name,
            info.config["model"]["target"].rpartition(".")[2],
            info.config["training"]["data"]["_target_"].split(".")[-2],
            figure("accuracy", test["correct_packed"] / test["images"]),
            figure("accuracy", published["value"] if published else None),
            byte_count(path.stat().st_size),
        )
    wide_console().print(table)
