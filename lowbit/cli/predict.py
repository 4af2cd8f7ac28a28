"""Say what pictures show, by a trained network: class and probability.

examples:
  python -m lowbit predict runs/…/checkpoints/best.ckpt cat.png dog.jpg
  python -m lowbit predict best.safetensors pictures/ --labels names.txt --top 3
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch

from lowbit.cli import _load, _options, _output, _pictures
from lowbit.cli._errors import UserError, user_errors

BATCH = 64


def add(parser: argparse.ArgumentParser) -> None:
    _options.add_network(parser)
    parser.add_argument(
        "pictures", nargs="+", type=Path, metavar="PICTURE", help="files, or folders of them"
    )
    parser.add_argument("--top", type=_options.positive, default=1, help="classes to name")
    parser.add_argument(
        "--labels", type=Path, metavar="FILE", help="the classes' names, a line each"
    )
    parser.add_argument(
        "--invert",
        action="store_true",
        help="dark becomes light: ink on paper for MNIST's networks",
    )
    _options.add_shape(parser)
    for name in ("mean", "std"):
        parser.add_argument(
            f"--{name}",
            type=float,
            nargs="+",
            metavar="X",
            help=f"{name} of pixels in [0, 1], of each channel (default: what the file says)",
        )
    _options.add_json(parser)


def run(options: argparse.Namespace) -> int:
    loaded = _load.load(options.network, options.model, options.set)
    if loaded.kind == "name":
        raise UserError(f"{options.network} is not trained: give a checkpoint or a packed file")
    prepared = _pictures.preparation(
        loaded.description, options.mean, options.std, options.input_shape
    )
    paths = list(_pictures.find(options.pictures))
    labels = None if options.labels is None else _labels(options.labels)
    found: list[dict[str, Any]] = []
    for start in range(0, len(paths), BATCH):
        part = paths[start : start + BATCH]
        images = torch.stack([_pictures.read(path, prepared, options.invert) for path in part])
        with torch.inference_mode(), user_errors(RuntimeError, ValueError):
            scores = loaded.model(images)
        top = scores.float().softmax(1).topk(min(options.top, scores.shape[1]))
        for path, values, classes in zip(part, top.values, top.indices, strict=True):
            best = [
                {"class": int(c), "label": _name(labels, int(c)), "probability": float(p)}
                for p, c in zip(values, classes, strict=True)
            ]
            found.append({"picture": str(path), "classes": best})
    if options.json:
        _output.print_json(found)
    else:
        rows = [
            (
                one["picture"] if rank == 0 else "",
                best["label"],
                f"{100 * best['probability']:.1f} %",
            )
            for one in found
            for rank, best in enumerate(one["classes"])
        ]
        _output.print_table(("picture", "class", "probability"), rows)
    return 0


def _labels(path: Path) -> list[str]:
    with user_errors(OSError, UnicodeDecodeError, prefix="--labels: "):
        return path.read_text(encoding="utf-8").splitlines()


def _name(labels: list[str] | None, number: int) -> str:
    if labels is None:
        return str(number)
    if number >= len(labels):
        raise UserError(f"--labels has {len(labels)} names, and the network a class {number}")
    return labels[number]
