"""Figures of an epoch."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric


class MeanOverImages(Metric):
    """The mean of a loss over the images of all batches, those of a small last one no heavier.

    A loss that is not finite shows in it. torchmetrics' ``MeanMetric`` hides one or, with
    ``nan_strategy="disable"``, forgets the weights (1.9).
    """

    full_state_update = False
    total: Tensor
    images: Tensor

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.add_state("total", torch.zeros(()), dist_reduce_fx="sum")
        self.add_state("images", torch.zeros(()), dist_reduce_fx="sum")

    def update(self, loss: Tensor, images: int) -> None:
        """``loss`` is the mean of a batch of so many images."""
        # In place, so that a captured step counts on.
        self.total += loss.float() * images
        self.images += images

    def compute(self) -> Tensor:
        return self.total / self.images
