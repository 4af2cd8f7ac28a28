"""A first convolution that is computed of training images before the first step."""

from __future__ import annotations

import pytorch_lightning as pl
import torch

from experiments._app import Problem
from experiments.callbacks._data import data_of


class FitWhitening(pl.Callback):
    """Calls ``fit_whitening(images)`` of the model, on training images that are not augmented.

    images        how many; of several processes the first computes them of its own share
    bias_epochs   after so many epochs the bias of ``model.whiten`` learns no more; None: always

    A run that is resumed has the weights of its checkpoint.

    Source: ``airbench94.py`` of KellerJordan/cifar10-airbench.
    """

    def __init__(self, images: int = 5000, bias_epochs: int | None = 3) -> None:
        if not isinstance(images, int) or images < 1:
            raise ValueError(f"images of FitWhitening is a whole number from 1 on; got {images!r}")
        if bias_epochs is not None and (not isinstance(bias_epochs, int) or bias_epochs < 0):
            raise ValueError(
                "bias_epochs of FitWhitening is a whole number from 0 on, or null for a bias that "
                f"always learns; got {bias_epochs!r}"
            )
        self.images = images
        self.bias_epochs = bias_epochs

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if stage != "fit":
            return
        model = pl_module.model
        if not hasattr(model, "fit_whitening"):
            raise Problem(
                f"callbacks.fit_whitening: {type(model).__name__} has no fit_whitening(images); "
                "take model=airbench, or callbacks without it"
            )
        # Before a checkpoint is read, which has its own.
        batches = data_of(trainer, "fit_whitening").calibration_dataloader(self.images)
        images = torch.cat([x for x, _ in batches])
        model.fit_whitening(images.to(model.whiten.weight.device))

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        # Without its gradient an optimizer leaves it as it is. To freeze it would be too late for
        # DistributedDataParallel, which waits for the gradient of each parameter it began with.
        if self.bias_epochs is not None and trainer.current_epoch >= self.bias_epochs:
            pl_module.model.whiten.bias.grad = None
