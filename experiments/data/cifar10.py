"""CIFAR-10: 50,000 + 10,000 colour photographs of 32 x 32 pixels, in 10 classes.

Source: Krizhevsky 2009, "Learning multiple layers of features from tiny images".
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from experiments.data._published import Published


class CIFAR10(Published):
    """CIFAR-10 in ``root/cifar-10-batches-py``; ``augment`` shifts by up to 4 and mirrors.

    Two versions of each batch file are accepted: the published one (first md5), and the one
    rebuilt from pixels and labels without the original file names (second md5), which differs
    from it in the list of names only, and that is not read.
    """

    folder: ClassVar[str] = "cifar-10-batches-py"
    torchvision_name: ClassVar[str] = "CIFAR10"
    files: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "data_batch_1": ("c99cafc152244af753f735de768cd75f", "1cce77bf8467de2515852f3007c2ddf4"),
        "data_batch_2": ("d4bba439e000b95fd0a9bffe97cbabec", "041b17ba514d5a71b67cf74b6fe54b28"),
        "data_batch_3": ("54ebc095f3ab1f0389bbae665268c751", "7e8fb82010106cd45474b66d1c8a158d"),
        "data_batch_4": ("634d18415352ddfa80567beed471001a", "5d964b0967a46aeb56aa1fad65f1f6fd"),
        "data_batch_5": ("482c414d41f54cd18b22e5b47cb7c3cb", "d5f74bdc982f4c997a2ac25d4fbc0e3e"),
        "test_batch": ("40351d587109b95175f43aff81a1287e", "cbaba4428cf3c012049c40275f7e9abe"),
    }
    test_file: ClassVar[str] = "test_batch"
    label_key: ClassVar[str] = "labels"
    num_classes = 10
    in_channels = 3
    image_size = 32
    mean = (0.4914, 0.4822, 0.4465)
    std = (0.2470, 0.2435, 0.2616)
    crop_padding = 4
    flip = True

    def __init__(self, *, val_size: int = 5000, **options: Any) -> None:
        super().__init__(val_size=val_size, **options)

    def load(self, train: bool) -> tuple[Tensor, Tensor]:
        # read() compares md5s: only pickles of known content are opened.
        batches = [
            pickle.loads(self.read(file), encoding="latin1")
            for file in self.files
            if (file != self.test_file) is train
        ]
        planes = np.concatenate([batch["data"] for batch in batches])
        labels = np.concatenate([batch[self.label_key] for batch in batches]).astype(np.int64)
        shape = (-1, self.in_channels, self.image_size, self.image_size)
        return torch.from_numpy(planes.reshape(shape)), torch.from_numpy(labels)
