"""CIFAR-100: 50,000 + 10,000 colour photographs of 32 x 32 pixels, in 100 (fine) classes.

Source: Krizhevsky 2009, "Learning multiple layers of features from tiny images".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from experiments.data.cifar10 import CIFAR10


class CIFAR100(CIFAR10):
    """CIFAR-100 in ``root/cifar-100-python``; options and augmentation of CIFAR-10."""

    folder: ClassVar[str] = "cifar-100-python"
    torchvision_name: ClassVar[str] = "CIFAR100"
    files: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "train": ("16019d7e3df5f24257cddd939b257f8d",),
        "test": ("f0ef6b0ae62326f3e7ffdfab6717acfc",),
    }
    test_file: ClassVar[str] = "test"
    label_key: ClassVar[str] = "fine_labels"
    num_classes = 100
    mean = (0.5071, 0.4865, 0.4409)
    std = (0.2673, 0.2564, 0.2762)
