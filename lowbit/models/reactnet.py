"""ReActNet-A, a binary MobileNet."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lowbit.models._blocks import activation as make_activation
from lowbit.models._blocks import chosen, initialise
from lowbit.nn import QActivation, QConv2d
from lowbit.quantizers import Spec

# Channels after each block; a block that changes them halves the size, but the first does not.
CHANNELS = (64, 128, 128, 256, 256, 512, 512, 512, 512, 512, 512, 1024, 1024)


class ReActBlock(nn.Module):
    """A quantized 3 x 3 convolution and a quantized 1 x 1, each with a shortcut.

    y = f(BN(conv(x)) + s(x));   f(BN(point(y)) + y)

    with f the activation and s the identity, or the 2 x 2 mean where ``stride`` is 2. Where the
    channels double, two 1 x 1 convolutions make half of the outputs each, both with y added, and
    both of the same q(y): one input quantizer serves the two.
    x (n, before, h, w) -> (n, after, h / stride, w / stride), rounded up; after is before or
    twice that.
    """

    def __init__(
        self,
        before: int,
        after: int,
        stride: int,
        *,
        activation: str | None,
        quantization: dict[str, Any],
    ) -> None:
        super().__init__()
        if after not in (before, 2 * before):
            raise ValueError(f"a block keeps or doubles its channels; got {before} to {after}")
        reads = quantization["input_quantization"]
        self.conv = QConv2d(before, before, 3, stride, 1, bias=False, **quantization)
        self.bn = nn.BatchNorm2d(before)
        self.pool: nn.Module = nn.Identity()
        if stride == 2:
            self.pool = nn.AvgPool2d(2, ceil_mode=True, count_include_pad=False)
        self.act1 = make_activation(activation, before, reads)
        self.doubles = after != before
        self.quantizer: nn.Module = nn.Identity()
        if self.doubles:
            quantization = dict(quantization)
            threshold = quantization.pop("gradient_cancellation_threshold")
            self.quantizer = QActivation(
                quantization.pop("input_quantization"), threshold, channels=before
            )
        self.point1 = QConv2d(before, before, 1, bias=False, **quantization)
        self.point_bn1 = nn.BatchNorm2d(before)
        if self.doubles:
            self.point2 = QConv2d(before, before, 1, bias=False, **quantization)
            self.point_bn2 = nn.BatchNorm2d(before)
        self.act2 = make_activation(activation, after, reads)

    def forward(self, x: Tensor) -> Tensor:
        y = self.act1(self.bn(self.conv(x)) + self.pool(x))
        q = self.quantizer(y)
        z = self.point_bn1(self.point1(q)) + y
        if self.doubles:
            z = torch.cat([z, self.point_bn2(self.point2(q)) + y], 1)
        return self.act2(z)


class ReActNet(nn.Module):
    """ReActNet-A: MobileNetV1 with dense binary 3 x 3 convolutions and a shortcut around each.

        3 x 3 of stride 2 to 32 channels - BN - 13 blocks - mean - Linear

        channels   64 - 128, 128 - 256, 256 - 512 (six times) - 1024, 1024, half the size at each
                   change but that to 64
        block      y = f(BN(conv(x)) + x);  f(BN(point(y)) + y)

    x (n, in_channels, h, w) -> (n, num_classes). First convolution and last layer are float.

    ``activation``   a name of ``ACTIVATIONS``: ``rprelu`` as published; ``None``: nothing where the
                     input quantizer has one or two bits, else ReLU
    ``stem_stride``  of the first convolution: 2 as published, 1 for small images
    ``channels``     of the blocks; the first convolution has half of the first one's
    ``weight_init``  ``bireal``: uniform in (0, 0.001), as published; ``kaiming``: normal
    ``pad_value``    around quantized inputs; 0 as published

    With 1000 classes and input quantizer ``rsign`` 29.34 million parameters, of which 28,253,184
    are of the quantized convolutions; for an image of 224 x 224 4.82 billion binary and 11.9
    million float multiply-adds. ReActNet-18 is a ``ResNet``, whose docstring has its arguments.

    Source: ReActNet, Liu et al. 2020; ``mobilenet/2_step2/reactnet.py`` of its repository.

    >>> q = {"input_quantization": "rsign", "weight_quantization": "bireal_weight"}
    >>> ReActNet(channels=(16, 32, 32), **q)(torch.randn(2, 3, 32, 32)).shape
    torch.Size([2, 10])
    """

    def __init__(
        self,
        in_channels: int = 3,
        num_classes: int = 10,
        *,
        activation: str | None = "rprelu",
        stem_stride: int = 2,
        channels: Sequence[int] = CHANNELS,
        weight_init: str = "bireal",
        input_quantization: Spec = None,
        weight_quantization: Spec = None,
        gradient_cancellation_threshold: float | None = None,
        pad_value: float | None = 0,
    ) -> None:
        super().__init__()
        chosen("weight_init", weight_init, ("bireal", "kaiming"))
        quantization = {
            "input_quantization": input_quantization,
            "weight_quantization": weight_quantization,
            "gradient_cancellation_threshold": gradient_cancellation_threshold,
            "pad_value": pad_value,
        }
        before = channels[0] // 2
        self.stem = nn.Sequential(
            nn.Conv2d(in_channels, before, 3, stem_stride, 1, bias=False), nn.BatchNorm2d(before)
        )
        blocks: list[nn.Module] = []
        for index, after in enumerate(channels):
            stride = 2 if index > 0 and after != before else 1
            blocks.append(
                ReActBlock(before, after, stride, activation=activation, quantization=quantization)
            )
            before = after
        self.blocks = nn.Sequential(*blocks)
        self.fc = nn.Linear(before, num_classes)
        for module in self.blocks.modules():
            if isinstance(module, QConv2d):
                initialise(module, weight_init)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.blocks(self.stem(x)).mean((2, 3)))
