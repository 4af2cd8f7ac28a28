"""Convolutions in channels-last memory."""

from __future__ import annotations

import pytorch_lightning as pl
import torch


class ChannelsLast(pl.Callback):
    """Lays weights out as channels-last, where processors convolve fastest.

    Convolutions then give channels-last results whatever their input's layout. Values, shapes
    and checkpoints are the same; sums are taken in another order.
    """

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        pl_module.to(memory_format=torch.channels_last)
