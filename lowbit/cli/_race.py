"""Models that take turns: how many images a second each computes."""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from lowbit.nn import QuantizedLayer

LEAST_ROUNDS = 5


def float_twin(model: nn.Module) -> nn.Module:
    """A copy whose layers have no quantizers, and pad with 0 as torch's layers do."""
    twin = copy.deepcopy(model)
    for layer in twin.modules():
        if isinstance(layer, QuantizedLayer):
            layer.input_quantization = layer.weight_quantization = None
            layer.gradient_cancellation_threshold = None
            if hasattr(layer, "pad_value"):
                layer.pad_value = 0.0  # type: ignore[assignment]
    return twin


def speed(models: Mapping[str, nn.Module], images: Tensor, seconds: float) -> dict[str, Any]:
    """Images per second of each model, medians: they take turns, for about ``seconds``.

    ``ratio`` is how many times as many images the last takes as ``trained``, and
    ``ratio_float`` as ``float``, where there are such: medians of the ratios of one round.
    """
    names = list(models)
    rounds: list[dict[str, float]] = []
    with torch.inference_mode():
        for model in models.values():
            model(images)
        end = time.perf_counter() + seconds
        while len(rounds) < LEAST_ROUNDS or time.perf_counter() < end:
            start = len(rounds) % len(names)
            turn = names[start:] + names[:start]
            rounds.append({name: _time(models[name], images) for name in turn})

    def ratio(other: str) -> float:
        return round(statistics.median(times[other] / times[names[-1]] for times in rounds), 3)

    return {
        "batch": len(images),
        "rounds": len(rounds),
        "images_per_second": {
            name: round(len(images) / statistics.median(times[name] for times in rounds), 1)
            for name in names
        },
        **({"ratio": ratio("trained")} if "trained" in models else {}),
        **({"ratio_float": ratio("float")} if "float" in models else {}),
    }


def _time(model: nn.Module, images: Tensor) -> float:
    start = time.perf_counter()
    model(images)
    return time.perf_counter() - start
