"""MNIST-1D: 4,000 + 1,000 signals of 40 numbers, in 10 classes, made here in a second.

Source: Greydanus and Kobak 2020, "Scaling Down Deep Learning with MNIST-1D"; ``data.py`` and
``transform.py`` of greydanus/mnist1d, with its seed 42.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from experiments.data._memory import InMemory

Signal = npt.NDArray[np.float64]

# One for each digit, of 12 points.
TEMPLATES = (
    (5, 6, 6.5, 6.75, 7, 7, 7, 7, 6.75, 6.5, 6, 5),
    (5, 3, 3, 3.4, 3.8, 4.2, 4.6, 5, 5.4, 5.8, 5, 5),
    (5, 6, 6.5, 6.5, 6, 5.25, 4.75, 4, 3.5, 3.5, 4, 5),
    (5, 6, 6.5, 6.5, 6, 5, 5, 6, 6.5, 6.5, 6, 5),
    (5, 4.4, 3.8, 3.2, 2.6, 2.6, 5, 5, 5, 5, 5, 5),
    (5, 3, 3, 3, 3, 5, 6, 6.5, 6.5, 6, 4.5, 5),
    (5, 4, 3.5, 3.25, 3, 3, 3, 3, 3.25, 3.5, 4, 5),
    (5, 7, 7, 6.6, 6.2, 5.8, 5.4, 5, 4.6, 4.2, 5, 5),
    (5, 4, 3.5, 3.5, 4, 5, 5, 4, 3.5, 3.5, 4, 5),
    (5, 4, 3.5, 3.5, 4, 5, 5, 5, 5, 4.7, 4.3, 5),
)
PER_CLASS = 500
TRAIN = 4000
LENGTH = 40  # of a signal
LONG = 72  # points that it is made of: a template and up to 60 zeros


def _resampled(x: Signal, points: int) -> Signal:
    return np.interp(np.linspace(0, 1, points), np.linspace(0, 1, len(x)), x)


def _signal(template: Signal, random: np.random.RandomState) -> Signal:
    """One example: padded, stretched, scaled and moved by chance, with noise and a slope."""
    from scipy.ndimage import gaussian_filter

    zeros = 36 + int(random.rand() * 25)
    x = _resampled(np.concatenate([template + 1e-8, np.zeros(zeros)]), LONG)
    x = x * (1 + 0.4 * (random.rand() - 0.5))
    x = np.roll(x, random.choice(48))
    # Smooth noise where there is nothing, and a little white noise everywhere.
    x = np.where(x != 0, x, gaussian_filter(0.25 * random.randn(LONG), 2))
    x = x + 0.02 * random.randn(LONG)
    x = x - 0.75 * (random.rand() - 0.5) * np.linspace(-0.5, 0.5, LONG)
    return _resampled(x, LENGTH)


@functools.cache
def signals() -> tuple[Tensor, Tensor]:
    """All examples in their order: (5000, 40) float32 with mean 0 and deviation 1, and labels."""
    templates = np.asarray(TEMPLATES, dtype=np.float64)
    templates = templates - templates.mean(1, keepdims=True)
    templates = templates / templates.std(1, keepdims=True)
    templates = (templates - templates[:, :1]) / 6  # a signal begins and ends at 0
    random = np.random.RandomState(42)
    made = np.stack([_signal(template, random) for template in templates for _ in range(PER_CLASS)])
    labels = np.repeat(np.arange(10), PER_CLASS)
    order = random.permutation(len(labels))
    made = (made - made.mean()) / made.std()
    return torch.from_numpy(made[order]).float(), torch.from_numpy(labels[order])


class MNIST1D(InMemory):
    """MNIST-1D, each signal as 40 channels of one pixel; it takes no ``augment``."""

    num_classes = 10
    in_channels = LENGTH
    image_size = 1
    mean = (0.0,) * LENGTH
    std = (1.0,) * LENGTH
    max_value = 1

    def __init__(self, *, val_size: int = 500, augment: bool = False, **options: Any) -> None:
        super().__init__(val_size=val_size, augment=augment, **options)
        if augment or self.normalise != "standard":
            raise ValueError(
                "MNIST1D is standardised as it is made, and random already: augment is false and "
                f"normalise standard; got augment={augment}, normalise={self.normalise!r}"
            )

    def preprocessing(self) -> dict[str, Any]:
        return {**super().preprocessing(), "mean": None, "std": None}  # signals, no pictures

    def load(self, train: bool) -> tuple[Tensor, Tensor]:
        x, labels = signals()
        part = slice(0, TRAIN) if train else slice(TRAIN, None)
        return x[part, :, None, None], labels[part]
