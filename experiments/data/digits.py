"""Digits: 1,797 real handwritten digits of 8 x 8 pixels with values 0 to 16, in 10 classes.

They come with scikit-learn, so nothing is downloaded. They are the test part of UCI's "Optical
Recognition of Handwritten Digits" (Alpaydin and Kaynak 1998); scikit-learn gives no split of
its own. Ours, fixed for all runs: 540 images (30 %) drawn by class are the test set, the other
1,257 are for training and validation.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from experiments.data._memory import InMemory
from experiments.data._split import carve

TEST_SIZE = 540
TEST_SEED = 0


class Digits(InMemory):
    """scikit-learn's digits; ``augment`` shifts by up to 1 pixel (off by default)."""

    num_classes = 10
    in_channels = 1
    image_size = 8
    max_value = 16
    mean = (0.3051,)
    std = (0.3762,)
    crop_padding = 1

    def __init__(
        self,
        *,
        batch_size: int = 64,
        val_size: int = 180,
        augment: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(batch_size=batch_size, val_size=val_size, augment=augment, **options)

    def load(self, train: bool) -> tuple[Tensor, Tensor]:
        from sklearn.datasets import load_digits

        digits = load_digits()
        images = torch.from_numpy(digits.images).to(torch.uint8)[:, None]
        labels = torch.from_numpy(digits.target).to(torch.int64)
        rest, test = carve(labels, TEST_SIZE, TEST_SEED)
        # In the order of the source, so that splits made further on do not depend on this one.
        indices = rest.sort().values if train else test
        return images[indices], labels[indices]
