"""Statistics of batch normalisations, computed anew before each evaluation."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from experiments.callbacks._data import data_of, validates


class Recalibrate(pl.Callback):
    """Replaces running means and variances by averages over training images, after each epoch.

    The images, ``images`` of them (None: all; BinaryConnect's code takes those that validate,
    too), go through the network as it is evaluated, with
    real weights where its recipe evaluates those; each normalisation takes the mean and variance
    of its batch, and keeps their plain average over batches. It is for networks that evaluate
    with other weights than they train, such as BinaryConnect's. Training does not read what
    this replaces. Several processes look at a share of the images each, and average.

    Source: ``set_mean_var`` of BinaryConnect's ``trainer.py``; the last epoch of Bi-Real Net, Liu
    et al. 2018.
    """

    def __init__(self, images: int | None = None) -> None:
        if images is not None and images < 1:
            raise ValueError(f"images of Recalibrate is at least 1, or null for all; got {images}")
        self.images = images

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        data_of(trainer, "recalibrate")

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        # Not where a finished network is validated: it has its statistics.
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            self._recalibrate(trainer, pl_module)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not validates(trainer):
            self._recalibrate(trainer, pl_module)

    def _recalibrate(self, trainer: pl.Trainer, pl_module: Any) -> None:
        norms = [
            m for m in pl_module.modules() if isinstance(m, _BatchNorm) and m.track_running_stats
        ]
        if not norms:
            return
        training = {module: module.training for module in pl_module.modules()}
        momenta = [norm.momentum for norm in norms]
        pl_module.eval()
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # a plain average
            norm.train()
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        images = len(data.train_indices) if self.images is None else self.images
        precision = trainer.strategy.precision_plugin
        with torch.no_grad(), pl_module.evaluating(), precision.forward_context():
            for batch in data.calibration_dataloader(images):
                x, _ = trainer.strategy.batch_to_device(batch)
                if len(x) > 1:  # one value has no variance
                    pl_module.model(x)
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
            self._average(trainer, norm)
        for module, was in training.items():
            module.training = was

    def _average(self, trainer: pl.Trainer, norm: nn.Module) -> None:
        for name in ("running_mean", "running_var"):
            ours = getattr(norm, name)
            ours.copy_(trainer.strategy.reduce(ours.clone(), reduce_op="mean"))
