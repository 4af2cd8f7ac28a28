"""Fashion-MNIST: 60,000 + 10,000 pictures of clothing in MNIST's format, in 10 classes.

Source: Xiao, Rasul and Vollgraf 2017.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from experiments.data.mnist import MNIST


class FashionMNIST(MNIST):
    """Fashion-MNIST in ``root/FashionMNIST/raw``; ``augment`` shifts by up to 2 and mirrors."""

    folder: ClassVar[str] = "FashionMNIST/raw"
    torchvision_name: ClassVar[str] = "FashionMNIST"
    files: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "train-images-idx3-ubyte": ("f4a8712d7a061bf5bd6d2ca38dc4d50a",),
        "train-labels-idx1-ubyte": ("9018921c3c673c538a1fc5bad174d6f9",),
        "t10k-images-idx3-ubyte": ("8181f5470baa50b63fa0f6fddb340f0a",),
        "t10k-labels-idx1-ubyte": ("15d484375f8d13e6eb1aabb0c3f46965",),
    }
    mean = (0.2860,)
    std = (0.3530,)
    flip = True

    def __init__(self, *, val_size: int = 5000, augment: bool = True, **options: Any) -> None:
        super().__init__(val_size=val_size, augment=augment, **options)
