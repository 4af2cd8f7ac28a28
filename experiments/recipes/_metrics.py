"""Figures of an epoch, counted in place: a step that is replayed from a CUDA graph counts on.

torchmetrics' own make a new tensor at each update, of which a graph would see the first only.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric


class Counts(Metric):
    """Sums over an epoch's images, in float32 and int64 also where the model is in less."""

    full_state_update = False

    def _apply(self, fn: Callable[[Tensor], Tensor], *args: Any, **kwargs: Any) -> Any:
        kept = {name: getattr(self, name).dtype for name in self._defaults}
        super()._apply(fn, *args, **kwargs)
        for name, dtype in kept.items():
            setattr(self, name, getattr(self, name).to(dtype))
            self._defaults[name] = self._defaults[name].to(dtype)  # which it begins anew with
        return self


class MeanOverImages(Counts):
    """The mean of a loss over the images of all batches, those of a small last one no heavier.

    A loss that is not finite shows in it. torchmetrics' ``MeanMetric`` hides one or, with
    ``nan_strategy="disable"``, forgets the weights (1.9).
    """

    total: Tensor
    images: Tensor

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.add_state("total", torch.zeros(()), dist_reduce_fx="sum")
        self.add_state("images", torch.zeros(()), dist_reduce_fx="sum")

    def update(self, loss: Tensor, images: int) -> None:
        """``loss`` is the mean of a batch of so many images."""
        self.total += loss.float() * images
        self.images += images

    def compute(self) -> Tensor:
        return self.total / self.images


class TopK(Counts):
    """The fraction of images whose label is among the k highest scores."""

    hits: Tensor
    images: Tensor

    def __init__(self, k: int = 1, **options: Any) -> None:
        super().__init__(**options)
        self.k = k
        self.add_state("hits", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("images", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, scores: Tensor, labels: Tensor) -> None:
        """Scores (n, classes) and labels (n,)."""
        if self.k == 1:
            self.hits += (scores.argmax(-1) == labels).sum()
        else:
            self.hits += (scores.topk(self.k).indices == labels[:, None]).sum()
        self.images += len(labels)

    def compute(self) -> Tensor:
        return self.hits / self.images
