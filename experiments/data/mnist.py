"""MNIST: 60,000 + 10,000 handwritten digits of 28 x 28 grey pixels, in 10 classes.

Source: LeCun, Bottou, Bengio and Haffner 1998, "Gradient-based learning applied to document
recognition".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from experiments.data._published import Published

# Bytes before the values of an idx file: a magic number, and four bytes for each size.
LABELS_HEADER = 8
IMAGES_HEADER = 16


class MNIST(Published):
    """MNIST in ``root/MNIST/raw``; ``augment`` shifts by up to 2 pixels (off by default)."""

    folder: ClassVar[str] = "MNIST/raw"
    torchvision_name: ClassVar[str] = "MNIST"
    # md5s of the published files, unpacked.
    files: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "train-images-idx3-ubyte": ("6bbc9ace898e44ae57da46a324031adb",),
        "train-labels-idx1-ubyte": ("a25bea736e30d166cdddb491f175f624",),
        "t10k-images-idx3-ubyte": ("2646ac647ad5339dbf082846283269ea",),
        "t10k-labels-idx1-ubyte": ("27ae3e4e09519cfbb04c329615203637",),
    }
    num_classes = 10
    in_channels = 1
    image_size = 28
    mean = (0.1307,)
    std = (0.3081,)
    crop_padding = 2

    def __init__(self, *, val_size: int = 5000, augment: bool = False, **options: Any) -> None:
        super().__init__(val_size=val_size, augment=augment, **options)

    def load(self, train: bool) -> tuple[Tensor, Tensor]:
        split = "train" if train else "t10k"
        images = np.frombuffer(
            bytearray(self.read(f"{split}-images-idx3-ubyte")), np.uint8, offset=IMAGES_HEADER
        )
        labels = np.frombuffer(
            self.read(f"{split}-labels-idx1-ubyte"), np.uint8, offset=LABELS_HEADER
        )
        shape = (-1, self.in_channels, self.image_size, self.image_size)
        return torch.from_numpy(images.reshape(shape)), torch.from_numpy(labels.astype(np.int64))
