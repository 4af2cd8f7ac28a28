"""What makes the network of a checkpoint anew, in the checkpoint itself."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl


class Description(pl.Callback):
    """Writes ``description`` into every checkpoint, under "lowbit".

    So a checkpoint is enough for ``python -m lowbit``, which knows no configuration.
    """

    def __init__(self, description: dict[str, Any]) -> None:
        self.description = description

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        checkpoint["lowbit"] = self.description
