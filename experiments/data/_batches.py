"""The loader of data sets that fit in memory: whole batches from uint8 tensors."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from experiments.data._augment import CropFlip
from experiments.data._epochs import Batch, Epochs
from experiments.data._normalise import Normalise
from experiments.data._shares import Shares
from experiments.data._whiten import Whiten

# Batches that a GPU makes together, as many as fit in so much memory: its kernels for one take
# longer to launch than to run.
AT_ONCE = 16
BYTES_AT_ONCE = 2**28


class Batches(Epochs):
    """Batches of the images at ``indices``: gathered, augmented and normalised as one tensor.

    ``images`` is (n, channels, height, width) uint8 and ``labels`` (n,) int64; batches are made
    on the device where these lie. Order and augmentation of an epoch are drawn at its start for
    all its images, the same on every process of a distributed run, whatever its share.
    """

    def __init__(
        self,
        images: Tensor,
        labels: Tensor,
        indices: Tensor,
        shares: Shares,
        normalise: Normalise | Whiten,
        augment: CropFlip | None = None,
        seed: int = 0,
        shuffle: bool = False,
    ) -> None:
        super().__init__(shares, seed, shuffle)
        self.images = images
        self.labels = labels
        self.indices = indices
        self.augment = augment
        self.normalise = normalise.to(images.device)
        self.at_once = 1
        if images.is_cuda:
            batch = 4 * shares.batch_size * images[0].numel()  # of float32
            self.at_once = max(1, min(AT_ONCE, BYTES_AT_ONCE // batch))

    def batches(self, epoch: int, start: int) -> Iterator[Batch]:
        order, generator = self.order(epoch)
        draws = None
        if self.augment is not None:
            draws = self.augment.draw(len(order), generator)
            seen, n = self.indices[order], len(self.images)
            draws = self.augment.alternate(draws, seen, n, self.seed, epoch).to(self.images.device)
        chosen = self.indices[order].to(self.images.device)
        steps = range(start, len(self))
        for first in range(0, len(steps), self.at_once):
            parts = [self.shares.part(step) for step in steps[first : first + self.at_once]]
            rows = torch.cat([chosen[part] for part in parts])
            images = self.images[rows]
            if self.augment is not None and draws is not None:
                images = self.augment(images, torch.cat([draws[part] for part in parts]))
            sizes = [part.stop - part.start for part in parts]
            yield from zip(
                self.normalise(images).split(sizes), self.labels[rows].split(sizes), strict=True
            )
