"""The network of the comparison: torchvision's ResNet-18 with weights drawn once."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from _bench.int8.absent import NotHere
from _bench.int8.images import images

BLOCKS, QUICK_BLOCKS = (2, 2, 2, 2), (1, 1, 1, 1)
SIZE, QUICK_SIZE = 224, 64
CLASSES = 1000
CALIBRATION, HELD_OUT = 32, 32


@dataclass(eq=False)
class Task:
    """A float network in eval mode, channels last, and the images that all contenders get.

    ``blocks`` of each stage and ``classes`` say which torchvision.models.ResNet the model is;
    ``calibration`` and ``held_out`` are (n, 3, size, size).
    """

    model: nn.Module
    blocks: tuple[int, ...]
    classes: int
    calibration: Tensor
    held_out: Tensor
    threads: int

    def batches(self) -> list[Tensor]:
        """The calibration images, eight at a time."""
        return list(self.calibration.split(8))


def task(quick: bool, threads: int = 1) -> Task:
    """ResNet-18 for 224 x 224; ``quick``: one block a stage, 32 x 32.

    Torchvision's initial weights with the factors of the batch norms from 1/2 to 3/2 and their
    means around 0, all of one seed; the statistics are those of four batches of other images.
    """
    blocks, size = (QUICK_BLOCKS, QUICK_SIZE) if quick else (BLOCKS, SIZE)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        model = network(blocks, CLASSES)
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.uniform_(module.weight, 0.5, 1.5)
                nn.init.normal_(module.bias, std=0.2)
                module.momentum = None  # the mean over the batches
        for seed in range(2, 6):
            model.train()(images(8, size, seed))
    count = (8, 8) if quick else (CALIBRATION, HELD_OUT)
    calibration, held_out = images(count[0], size, 0), images(count[1], size, 1)
    return Task(model.eval(), blocks, CLASSES, calibration, held_out, threads)


def network(blocks: tuple[int, ...], classes: int) -> nn.Module:
    """Torchvision's ResNet of basic blocks, channels last, with its initial weights."""
    try:
        from torchvision.models.resnet import BasicBlock, ResNet
    except ImportError as error:
        raise NotHere("torchvision not installed") from error
    model: nn.Module = ResNet(BasicBlock, list(blocks), num_classes=classes)
    return model.to(memory_format=torch.channels_last)
