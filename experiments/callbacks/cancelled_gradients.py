"""How many gradients the layers' gradient cancellation stops."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from lowbit.nn import QuantizedLayer


class CancelledGradients(pl.Callback):
    """Logs ``cancelled/<layer>``: the fraction of the layer's inputs with |x| > threshold.

    Looked at in the first batch of each epoch. Layers without a threshold are left out.
    """

    def __init__(self) -> None:
        self._hooks: list[RemovableHandle] = []
        self._fractions: dict[str, Tensor] = {}

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if batch_idx > 0:
            return
        for name, module in pl_module.model.named_modules():
            threshold = getattr(module, "gradient_cancellation_threshold", None)
            if isinstance(module, QuantizedLayer) and threshold is not None:
                self._hooks.append(module.register_forward_pre_hook(self._look(name, threshold)))

    def _look(self, name: str, threshold: float) -> Any:
        def hook(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            with torch.no_grad():
                self._fractions[name] = (inputs[0].abs() > threshold).float().mean()

        return hook

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        for name, fraction in self._fractions.items():
            pl_module.log(
                f"cancelled/{name}", fraction, on_step=False, on_epoch=True, sync_dist=True
            )
        for hook in self._hooks:
            hook.remove()
        self._hooks, self._fractions = [], {}
