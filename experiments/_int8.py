"""The int8 model beside the trained one: how far they agree, in which bytes and time."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import Any

import torch
from omegaconf import DictConfig
from torch import nn

import lowbit
from experiments import _build, _packed
from experiments._packed import agreement, ready, speed
from lowbit import kernels
from lowbit.kernels import int8

# Seconds for each timing and for the test set, when a training ends.
AT_THE_END = (0.1, 10.0)


@dataclass
class Comparison:
    """The converted model, what became of its layers, and what ``compare`` measured."""

    model: nn.Module
    report: Any
    figures: dict[str, Any]


def converted(model: nn.Module, data: Any, cfg: DictConfig) -> tuple[nn.Module, Any]:
    """A copy of the trained model in int8; and the report, None where there is none.

    static    ranges are those of ``cfg.calibration`` training images, without augmentation
    dynamic   weights alone are quantized beforehand
    qat       the model is one that ``lowbit.prepare_qat`` made, and has its ranges
    """
    if cfg.int8 == "dynamic":
        return lowbit.quantize_dynamic(model), None
    if cfg.int8 == "static":
        batches = data.calibration_dataloader(cfg.calibration)
        example = ready(model, next(iter(batches)))[0][:2]
        model = lowbit.prepare(model, cfg.qconfig, example=example)
        with torch.inference_mode():
            for batch in batches:
                model(ready(model, batch)[0])
    return lowbit.convert(model, to="int8")


def compare(
    trained: nn.Module,
    twin: nn.Module,
    data: Any,
    cfg: DictConfig,
    seconds: float,
    patience: float = math.inf,
) -> Comparison:
    """Convert a copy of ``trained``, and compare it on the test set and in time.

    ``twin`` is the float network of its layers, for the time in channels-last.
    ``seconds`` go into each timing. After ``patience`` seconds no further batch of the test set
    is begun; ``figures["images"]`` of ``figures["test_images"]`` were compared.

    ``figures``, besides: ``mode``, and of "static" the number of ``calibration`` images and the
    ``qconfig``; ``kernel``; ``bytes`` of the float model and ``bytes_int8`` of all that is
    stored; those of ``agreement``, and ``speed`` for a batch of the data's size and for one
    image, in ``threads`` threads.
    """
    trained = copy.deepcopy(trained).cpu().eval()
    twin = copy.deepcopy(twin).cpu().eval().to(memory_format=torch.channels_last)
    data.setup("test")
    loader = data.test_dataloader()
    images, _ = ready(trained, next(iter(loader)))
    model, report = converted(trained, data, cfg)
    models = {"trained": trained, "float": twin, "int8": model}
    static = {"calibration": cfg.calibration, "qconfig": cfg.qconfig}
    figures = {
        "mode": cfg.int8,
        **(static if cfg.int8 == "static" else {}),
        "kernel": _kernel(),
        "bytes": stored_bytes(twin),
        "bytes_int8": stored_bytes(model),
        "test_images": loader.shares.size,
        **agreement(trained, model, loader, patience, "int8"),
        "threads": torch.get_num_threads(),
        "speed": [speed(models, batch, seconds) for batch in (images, images[:1])],
    }
    return Comparison(model, report, figures)


def at_the_end(run: _build.Run, cfg: DictConfig) -> dict[str, Any]:
    """``int8`` of a training's ``result.json``: its figures.

    The training is done and its result written, so an error is a line too, under ``error``.
    """
    again = f"python -m experiments.eval checkpoint=… int8={cfg.int8}"
    if run.trainer.world_size > 1:
        return {"why": f"not compared, as several processes trained; see {again}"}
    try:
        twin = float_twin(run, cfg)
        return compare(run.recipe.model, twin, run.data, cfg, *AT_THE_END).figures
    except Exception as error:
        words = (str(error).strip().splitlines() or [""])[0]
        return {"error": f"failed, {type(error).__name__}: {words}; all of it: {again}"}


def float_twin(run: _build.Run, cfg: DictConfig) -> nn.Module:
    """The float network of the trained one's layers."""
    if cfg.int8 == "qat":
        return _build.make_model(cfg, run.data, quantized=False)
    return _packed.float_twin(run.recipe.model)


def _kernel() -> str:
    """What multiplies integers: oneDNN, lowbit's compiled operators, or torch where neither is."""
    names = ["oneDNN"] * int8.available() + ["lowbit"] * kernels.available()
    return " and ".join(names) or "plain torch"


def stored_bytes(model: nn.Module) -> int:
    """Bytes of the tensors in the ``state_dict``."""
    values = model.state_dict().values()
    return sum(t.numel() * t.element_size() for t in values if isinstance(t, torch.Tensor))
