"""The learning rates of a training."""

from __future__ import annotations

import pytorch_lightning as pl


class LearningRate(pl.Callback):
    """Logs ``lr/<parameter group>`` after each epoch: the rate that its next step would take."""

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        for optimizer in trainer.optimizers:
            for i, group in enumerate(optimizer.param_groups):
                pl_module.log(f"lr/{group.get('name', i)}", float(group["lr"]))
