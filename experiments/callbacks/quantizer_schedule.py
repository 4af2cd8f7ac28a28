"""Quantizers that follow the training."""

from __future__ import annotations

import pytorch_lightning as pl

from lowbit.quantizers import Quantizer


class QuantizerSchedule(pl.Callback):
    """Tells every quantizer, as an epoch starts, how far training is: epoch / epochs."""

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        fraction = trainer.current_epoch / trainer.max_epochs
        for module in pl_module.modules():
            if isinstance(module, Quantizer):
                module.set_progress(fraction)
