"""The learning curves of a run, as a picture."""

from __future__ import annotations

from pathlib import Path

import pytorch_lightning as pl

from experiments import _draw, _learning_curves
from experiments.callbacks.history import rows_of


class Curves(pl.Callback):
    """Draws loss and accuracy by epoch into ``path``, a PNG, when training ends.

    They are the rows of ``History``.
    """

    def __init__(self, path: str, title: str = "") -> None:
        self.path = Path(path)
        self.title = title

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        rows_of(trainer, "curves")

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.is_global_zero:
            _draw.save(_learning_curves.one_run(rows_of(trainer, "curves"), self.title), self.path)
