"""Synthetic images of any size, for smoke tests and for timing runs without the data."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from experiments.data._memory import InMemory
from experiments.data._seeds import generator_of


class Synthetic(InMemory):
    """Noisy pictures of one random template per class.

    Each value is that of the template with probability ``signal`` and uniform noise otherwise;
    templates are of 8 x 8 cells. 1 is trivial to learn, 0 is pure noise with random labels.

    ``augment`` shifts by up to 4 pixels and mirrors (off by default).

    train_size, test_size   images (of those to train, ``val_size`` validate)
    data_seed               of templates, noise and labels
    """

    mean = (0.5,)
    std = (0.2887,)  # of uniform values: sqrt(1/12)
    crop_padding = 4
    flip = True

    def __init__(
        self,
        *,
        num_classes: int = 10,
        in_channels: int = 3,
        image_size: int = 32,
        train_size: int = 1024,
        test_size: int = 256,
        batch_size: int = 32,
        val_size: int = 128,
        signal: float = 0.5,
        data_seed: int = 0,
        augment: bool = False,
        **options: Any,
    ) -> None:
        self.num_classes = num_classes
        self.in_channels = in_channels
        self.image_size = image_size
        super().__init__(batch_size=batch_size, val_size=val_size, augment=augment, **options)
        if not 0 <= signal <= 1:
            raise ValueError(f"signal of Synthetic is a probability; got {signal}")
        self.train_size = train_size
        self.test_size = test_size
        self.signal = signal
        self.data_seed = data_seed
        self.mean = self.mean * in_channels
        self.std = self.std * in_channels

    def load(self, train: bool) -> tuple[Tensor, Tensor]:
        templates = torch.randint(
            256,
            (self.num_classes, self.in_channels, 8, 8),
            generator=generator_of(self.data_seed),
            dtype=torch.uint8,
        )
        generator = generator_of(self.data_seed, 1 if train else 2)
        size = self.train_size if train else self.test_size
        labels = torch.randint(self.num_classes, (size,), generator=generator)
        cells = torch.arange(self.image_size) * 8 // self.image_size
        shown = templates[labels][:, :, cells[:, None], cells]
        noise = torch.randint(256, shown.shape, generator=generator, dtype=torch.uint8)
        kept = torch.rand(shown.shape, generator=generator) < self.signal
        return torch.where(kept, shown, noise), labels
