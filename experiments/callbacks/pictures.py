"""Pictures of a training: weights, and what becomes of signs and gradients."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from matplotlib.figure import Figure

from experiments import _draw, _panels, loggers
from experiments.callbacks._data import data_of
from experiments.callbacks.history import rows_of
from lowbit.nn import latent_layers


class Pictures(pl.Callback):
    """Draws PNG files into ``folder``, and shows them in the loggers, when training ends.

    filters          the first layer's filters
    signs            the signs of quantized weights
    latent_weights   histograms of latent weights, with the share near 0
    flips            weights that changed their level, by layer and epoch (``FlipRatio``)
    cancelled        gradients that were cancelled, by layer and epoch (``CancelledGradients``)

    ``every``: draw after so many epochs too, over the pictures before; None: at the end alone.
    A picture of what a network has not is left out.
    """

    def __init__(self, folder: str, every: int | None = None) -> None:
        if every is not None and every < 1:
            raise ValueError(f"every of Pictures is at least 1, or null for the end; got {every}")
        self.folder = Path(folder)
        self.every = every

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        rows_of(trainer, "pictures")
        data_of(trainer, "pictures")

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        if self.every is not None and (trainer.current_epoch + 1) % self.every == 0:
            self._draw(trainer, pl_module)

    def on_fit_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        self._draw(trainer, pl_module)

    def _draw(self, trainer: pl.Trainer, pl_module: Any) -> None:
        if not trainer.is_global_zero:
            return
        for name, figure in self._figures(trainer, pl_module):
            path = self.folder / f"{name}.png"
            _draw.save(figure, path)
            loggers.add_picture(trainer.loggers, figure, path, trainer.global_step)

    def _figures(self, trainer: pl.Trainer, pl_module: Any) -> Iterator[tuple[str, Figure]]:
        data = data_of(trainer, "pictures")
        shape = (data.in_channels, data.image_size, data.image_size)
        first = _panels.first_weight(pl_module.model, shape)
        if first is not None:
            yield "filters", _panels.filters(*first)
        layers = list(latent_layers(pl_module.model))
        if layers:
            yield "signs", _panels.sign_maps(layers)
            yield "latent_weights", _panels.latent_histograms(layers)
        rows = rows_of(trainer, "pictures")
        rates = {
            "flips": "weights whose quantized level changed during the epoch",
            "cancelled": "cancelled gradients: inputs beyond the threshold, in the first batch",
        }
        for prefix, title in rates.items():
            figure = _panels.by_layer(rows, prefix, title)
            if figure is not None:
                yield prefix, figure
