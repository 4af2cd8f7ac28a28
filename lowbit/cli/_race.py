"""Models that take turns: how many images a second each computes."""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Callable, Iterable, Mapping
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
    """Images per second of each model: they take turns, for about ``seconds``.

    ``ratio`` is how many times as many images the last takes as ``trained``, and
    ``ratio_float`` as ``float``, where there are such.

    A busy machine interrupts long calls more often than short ones, so that taking turns alone
    would flatter the fast model. In one thread, times are therefore the processor's own, medians of
    the rounds, and ratios those of one round; in several, which share the processor's time in ways
    that no clock tells apart, the least of the clock's.
    """
    names = list(models)
    one_thread = torch.get_num_threads() == 1
    clock = time.thread_time if one_thread else time.perf_counter
    summary: Callable[[Iterable[float]], float] = statistics.median if one_thread else min
    rounds: list[dict[str, float]] = []
    with torch.inference_mode():
        for model in models.values():
            model(images)
        end = time.perf_counter() + seconds
        while len(rounds) < LEAST_ROUNDS or time.perf_counter() < end:
            start = len(rounds) % len(names)
            turn = names[start:] + names[:start]
            rounds.append({name: _time(models[name], images, clock) for name in turn})

    taken = {name: summary([times[name] for times in rounds]) for name in names}

    def ratio(other: str) -> float:
        if not one_thread:
            return round(taken[other] / taken[names[-1]], 3)
        return round(statistics.median(times[other] / times[names[-1]] for times in rounds), 3)

    return {
        "batch": len(images),
        "rounds": len(rounds),
        "images_per_second": {name: round(len(images) / taken[name], 1) for name in names},
        **({"ratio": ratio("trained")} if "trained" in models else {}),
        **({"ratio_float": ratio("float")} if "float" in models else {}),
    }


def times_are(threads: int) -> str:
    """What the times of ``speed`` are, in that many threads, for the reader of a table."""
    return "medians of the processor's" if threads == 1 else "the least of the clock's"


def _time(model: nn.Module, images: Tensor, clock: Callable[[], float]) -> float:
    start = clock()
    model(images)
    return clock() - start
