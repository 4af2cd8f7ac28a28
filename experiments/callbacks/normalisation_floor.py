"""The scales of batch normalisation kept positive."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl
import torch
from torch.nn.modules.batchnorm import _BatchNorm

from experiments._numbers import at_least


class NormalisationFloor(pl.Callback):
    """Clamps the scale (weight) of every batch normalisation to at least ``floor`` after each step.

    A scale that falls through 0 would flip the signs of a whole channel.

    Source: ``models/LeNet_5.py`` of jiecaoyu/XNOR-Net-PyTorch, floor 0.01.
    """

    def __init__(self, floor: float = 0.01) -> None:
        at_least("floor of NormalisationFloor", floor, 0)
        self.floor = floor

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any
    ) -> None:
        scales = [
            module.weight
            for module in pl_module.model.modules()
            if isinstance(module, _BatchNorm) and module.weight is not None
        ]
        if scales:
            with torch.no_grad():
                torch._foreach_clamp_min_(scales, self.floor)
