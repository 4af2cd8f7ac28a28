"""The network of the comparison: torchvision's ResNet-18 with weights drawn once."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from _bench.int8.absent import NotHere

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

    The initial weights of torch.nn.Conv2d, of one seed: uniform, which 8 bits hold well, where
    torchvision's normal ones, with their long tails, cost all engines some 8 dB. Batch norms as
    they are made; images of uniform noise.
    """
    blocks, size = (QUICK_BLOCKS, QUICK_SIZE) if quick else (BLOCKS, SIZE)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        model = network(blocks, CLASSES)
        for module in model.modules():
            if isinstance(module, nn.Conv2d):
                module.reset_parameters()
    count = (8, 8) if quick else (CALIBRATION, HELD_OUT)
    calibration, held_out = (noise(n, size, seed) for seed, n in enumerate(count))
    return Task(model.eval(), blocks, CLASSES, calibration, held_out, threads)


def noise(count: int, size: int, seed: int) -> Tensor:
    """(count, 3, size, size) from 0 to 1, channels last."""
    drawn = torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(seed))
    return drawn.contiguous(memory_format=torch.channels_last)


def network(blocks: tuple[int, ...], classes: int) -> nn.Module:
    """Torchvision's ResNet of basic blocks, channels last, with its initial weights."""
    try:
        from torchvision.models.resnet import BasicBlock, ResNet
    except ImportError as error:
        raise NotHere("torchvision not installed") from error
    model: nn.Module = ResNet(BasicBlock, list(blocks), num_classes=classes)
    return model.to(memory_format=torch.channels_last)
