"""A trained network: ResNet-18 on scikit-learn's handwritten digits, in half a minute."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from _bench.int8.absent import NotHere
from _bench.int8.resnet import BLOCKS, QUICK_BLOCKS, Task, network

SIZE, CLASSES = 32, 10
TRAINING, BATCH, EPOCHS = 1500, 50, 4
CALIBRATION = 64
RATE = 0.05


@dataclass(eq=False)
class Digits(Task):
    """``labels`` of the held-out images, which are all that the network was not trained on."""

    labels: Tensor


def task(quick: bool, threads: int = 1) -> Digits:
    """Trained by SGD, one cycle of the rate, all of one seed; calibrated on training images."""
    x, y = _digits()
    blocks, epochs = (QUICK_BLOCKS, 1) if quick else (BLOCKS, EPOCHS)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = network(blocks, CLASSES)
        steps = range(0, TRAINING, BATCH)
        optimizer = torch.optim.SGD(model.parameters(), RATE, momentum=0.9, weight_decay=5e-4)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, RATE, total_steps=epochs * len(steps)
        )
        for _ in range(epochs):
            for start in steps:
                some = slice(start, start + BATCH)
                optimizer.zero_grad()
                F.cross_entropy(model(x[some]), y[some]).backward()
                optimizer.step()
                schedule.step()
    return Digits(
        model.eval(), blocks, CLASSES, x[:CALIBRATION], x[TRAINING:], threads, y[TRAINING:]
    )


def _digits() -> tuple[Tensor, Tensor]:
    """1797 images (3, 32, 32) of mean about 0 and deviation about 1, shuffled, and labels."""
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise NotHere("scikit-learn not installed") from error
    found = load_digits()
    order = torch.randperm(len(found.target), generator=torch.Generator().manual_seed(0))
    small = torch.tensor(found.images, dtype=torch.float32)[order, None] / 16
    x = (F.interpolate(small, size=(SIZE, SIZE), mode="bilinear") - 0.3) / 0.37
    last = x.expand(-1, 3, -1, -1).contiguous(memory_format=torch.channels_last)
    return last, torch.tensor(found.target)[order]
