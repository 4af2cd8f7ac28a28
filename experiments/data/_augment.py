"""Augmentation of whole batches of uint8 images: random crop and horizontal flip."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class CropFlip:
    """Crop at a random place of the zero-padded image, then mirror half of the images.

    ``padding`` pixels are added on each side, so there are (2 padding + 1)^2 places; the added
    pixels are 0 before normalisation, as in torchvision's ``RandomCrop``.
    """

    padding: int
    flip: bool

    def draw(self, n: int, generator: torch.Generator) -> Tensor:
        """What to do to each of n images: (n, 3) int64 of row, column and whether to mirror."""
        places = torch.randint(2 * self.padding + 1, (n, 2), generator=generator)
        mirror = torch.randint(2 if self.flip else 1, (n, 1), generator=generator)
        return torch.cat([places, mirror], dim=1)

    def __call__(self, images: Tensor, draws: Tensor) -> Tensor:
        """(b, channels, height, width) uint8 and its rows of ``draw`` -> the same shape."""
        row, column, mirror = draws.unbind(1)
        if self.padding:
            height, width = images.shape[-2:]
            padded = F.pad(images, [self.padding] * 4)
            # A view of all crops, (b, channels, rows, columns, height, width); one of each
            # image is copied.
            crops = padded.unfold(2, height, 1).unfold(3, width, 1)
            images = crops[torch.arange(len(images), device=images.device), :, row, column]
        if self.flip:
            images = torch.where(mirror.bool()[:, None, None, None], images.flip(-1), images)
        return images
