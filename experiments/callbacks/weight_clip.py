"""Latent weights kept in a range."""

from __future__ import annotations

import math
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor

from experiments._numbers import above
from lowbit.nn import latent_layers


def glorot(weight: Tensor) -> float:
    """sqrt(1.5 / (fan_in + fan_out)), BinaryConnect's H = 1 in the units of its scaled rate.

    ``weight`` is (out, in, …); fans count the kernel's area.
    """
    area = math.prod(weight.shape[2:])
    return math.sqrt(1.5 / ((weight.shape[0] + weight.shape[1]) * area))


class WeightClip(pl.Callback):
    """Clamps the latent weights of every layer to [-limit, limit] after each training step.

    ``limit`` is a number, or ``glorot``: ``sqrt(1.5 / (fan_in + fan_out))`` of each layer.

    Source: BinaryConnect, Courbariaux et al. 2015, section 2.4.
    """

    def __init__(self, limit: float | str = 1.0) -> None:
        if isinstance(limit, str) and limit != "glorot":
            raise ValueError(f"limit of WeightClip is a number or 'glorot'; got {limit!r}")
        if not isinstance(limit, str):
            above("limit of WeightClip", limit, 0)
        self.limit = limit

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any
    ) -> None:
        weights = [layer.weight for _, layer in latent_layers(pl_module.model)]
        if not weights:
            return
        limits = [glorot(w) if isinstance(self.limit, str) else self.limit for w in weights]
        with torch.no_grad():
            torch._foreach_clamp_min_(weights, [-limit for limit in limits])
            torch._foreach_clamp_max_(weights, limits)
