"""The packed model beside the trained one: the same answers, in fewer bytes and less time."""

from __future__ import annotations

import copy
import math
import time
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

import lowbit
from experiments._build import Run
from lowbit import kernels
from lowbit.cli._race import float_twin, speed
from lowbit.convert import Report

# Seconds for each timing and for the test set, when a training ends.
AT_THE_END = (0.1, 3.0)


@dataclass
class Comparison:
    """What became of the layers, and what ``compare`` measured; why nothing was, if so."""

    report: Report
    figures: dict[str, Any] | None
    why: str = ""


def compare(model: nn.Module, data: Any, seconds: float, patience: float = math.inf) -> Comparison:
    """Convert a copy of the model, and compare it on the test set and in time.

    ``seconds`` go into each timing. After ``patience`` seconds no further batch of the test set
    is begun; ``figures["images"]`` of ``figures["test_images"]`` were compared.

    ``figures``, besides: ``layers_packed`` of ``layers``, the ``kernel``, ``bytes`` and
    ``bytes_packed`` of all that is stored, those of ``agreement``, and ``speed``, for a batch of
    the data's size and for one image, in ``threads`` threads.
    """
    trained = copy.deepcopy(model).cpu().eval()
    data.setup("test")
    loader = data.test_dataloader()
    images, _ = ready(trained, next(iter(loader)))
    packed, report = lowbit.convert(trained, example=images[:2])
    done = [row for row in report if row.packed]
    if not done:
        return Comparison(report, None, why_nothing(report))
    models = {"trained": trained, "float": float_twin(trained), "packed": packed}
    figures = {
        "layers": len(report),
        "layers_packed": len(done),
        "kernel": kernels.isa(),
        "bytes": report.bytes_before,
        "bytes_packed": report.bytes_after,
        "test_images": loader.shares.size,
        **agreement(trained, packed, loader, patience),
        "threads": torch.get_num_threads(),
        "speed": [speed(models, batch, seconds) for batch in (images, images[:1])],
    }
    return Comparison(report, figures)


def at_the_end(run: Run) -> dict[str, Any]:
    """``packed`` of a training's ``result.json``: figures, or ``why`` there are none.

    The training is done and its result written, so an error is a line too, under ``error``.
    """
    again = "python -m experiments.eval checkpoint=… packed=true"
    if run.trainer.world_size > 1:
        return {"why": f"not compared, as several processes trained; see {again}"}
    try:
        comparison = compare(run.recipe.model, run.data, *AT_THE_END)
    except Exception as error:
        words = (str(error).strip().splitlines() or [""])[0]
        return {"error": f"failed, {type(error).__name__}: {words}; all of it: {again}"}
    return {"why": comparison.why} if comparison.figures is None else comparison.figures


def why_nothing(report: Report) -> str:
    """Why no layer of a model was packed, in one line."""
    if not len(report):
        return "nothing to pack: no layer has quantizers"
    names = ", ".join(row.name for row in report[:3]) + (", …" if len(report) > 3 else "")
    return f"nothing packs of {names}: {report[0].why}"


def ready(model: nn.Module, batch: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Images on the processor in the model's type, and their labels."""
    floats = (p.dtype for p in model.parameters() if p.is_floating_point())
    return batch[0].to("cpu", next(floats, torch.float32)), batch[1].cpu()


def agreement(
    trained: nn.Module,
    packed: nn.Module,
    loader: Any,
    patience: float = math.inf,
    name: str = "packed",
) -> dict[str, Any]:
    """How far two models agree on the batches of a loader.

    ``images``              how many were compared
    ``correct``             predictions of the trained model that are the label
    ``correct_{name}``      those of the other one
    ``differing``           images whose two predictions are not the same class
    ``largest_difference``  between two scores; of equal infinities, or NaN in both, it is 0
    """
    counts = dict.fromkeys(("images", "correct", f"correct_{name}", "differing"), 0)
    largest = 0.0
    end = time.perf_counter() + patience
    with torch.inference_mode():
        for batch in loader:
            images, labels = ready(trained, batch)
            expected, found = trained(images), packed(images)
            classes, found_classes = expected.argmax(1), found.argmax(1)
            counts["images"] += len(images)
            counts["correct"] += int((classes == labels).sum())
            counts[f"correct_{name}"] += int((found_classes == labels).sum())
            counts["differing"] += int((classes != found_classes).sum())
            same = (expected == found) | (expected.isnan() & found.isnan())
            difference = (expected - found).abs().masked_fill(same, 0.0)
            # A score that is NaN on one side only is as far off as can be.
            largest = max(largest, difference.nan_to_num(math.inf).max().item())
            if time.perf_counter() > end:
                break
    return {**counts, "largest_difference": largest}
