"""Latent weights centred, the ends of their magnitudes drawn in."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor

from lowbit.functional.stats import other_axes
from lowbit.nn import latent_layers


def percentiles(values: Tensor, *shares: float) -> list[Tensor]:
    """The values with so large a share of the others below them, interpolated linearly.

    ``torch.quantile`` takes 16 million values at most.
    """
    ranked = values.flatten().sort().values
    found = []
    for share in shares:
        place = share * (len(ranked) - 1)
        low = int(place)
        high = min(low + 1, len(ranked) - 1)
        found.append(torch.lerp(ranked[low], ranked[high], place - low))
    return found


class MagnitudeClip(pl.Callback):
    """Centres latent weights and clamps their magnitudes between two percentiles, at each step.

        w <- sign(v) clamp(|v|, P_p, P_(100 - p)),   v = w - mean_o

    with mean_o over output channel o and the percentiles P over the whole tensor; the share p
    falls from ``percent`` to 0 with the epochs, p = percent (1 - epoch / epochs).

    Source: SiMaN, Lin et al. 2022; ``binarized_modules.py`` and ``main.py`` of its repository,
    which does so before each forward pass, in evaluation too.
    """

    def __init__(self, percent: float = 5.0) -> None:
        if not 0 <= percent < 50:
            raise ValueError(f"percent of MagnitudeClip is from 0 to below 50; got {percent}")
        self.percent = percent

    @torch.no_grad()
    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any
    ) -> None:
        share = self.percent / 100 * (1 - trainer.current_epoch / (trainer.max_epochs or 1))
        for _, layer in latent_layers(pl_module.model):
            assert layer.weight_quantization is not None
            others = other_axes(layer.weight, layer.weight_quantization.axis)
            v = layer.weight - layer.weight.mean(others, keepdim=True)
            sizes = v.abs()
            low, high = percentiles(sizes, share, 1 - share)
            layer.weight.copy_(sizes.clamp(low, high).mul_(v.sign()))
