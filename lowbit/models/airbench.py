"""The network of airbench94, for fast training on CIFAR-10."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lowbit.models._blocks import activation as make_activation
from lowbit.models._residual import PadChannels
from lowbit.nn import QConv2d
from lowbit.quantizers import Spec


def _norm(channels: int) -> nn.BatchNorm2d:
    """With a learned shift alone; its statistics follow the last few batches."""
    norm = nn.BatchNorm2d(channels, eps=1e-12, momentum=0.4)
    norm.weight.requires_grad_(False)
    return norm


class ConvGroup(nn.Module):
    """y = f(BN(pool(conv1(x))) + s(x));  f(BN(conv2(y)) + y)

    conv1 and conv2 are quantized 3 x 3 convolutions, pool is the 2 x 2 maximum, f the activation
    and s the 2 x 2 mean with zero channels around. Without ``shortcut`` nothing is added.
    (n, before, h, w) -> (n, after, h / 2, w / 2), rounded down.
    """

    def __init__(
        self,
        before: int,
        after: int,
        *,
        shortcut: bool,
        activation: str | None,
        quantization: dict[str, Any],
    ) -> None:
        super().__init__()
        reads = quantization["input_quantization"]
        self.shortcut = shortcut
        self.conv1 = QConv2d(before, after, 3, padding=1, bias=False, **quantization)
        self.pool = nn.MaxPool2d(2)
        self.bn1 = _norm(after)
        self.act1 = make_activation(activation, after, reads)
        self.conv2 = QConv2d(after, after, 3, padding=1, bias=False, **quantization)
        self.bn2 = _norm(after)
        self.act2 = make_activation(activation, after, reads)
        if shortcut:
            self.downsample = nn.Sequential(nn.AvgPool2d(2), PadChannels(after - before))

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn1(self.pool(self.conv1(x)))
        if not self.shortcut:
            return self.act2(self.bn2(self.conv2(self.act1(y))))
        y = self.act1(y + self.downsample(x))
        return self.act2(self.bn2(self.conv2(y)) + y)


class Airbench(nn.Module):
    """A small VGG behind a whitening convolution that is computed, not learned.

        whiten: 2 x 2 to 24 channels - f - 3 groups of two convolutions - maximum - Linear

    x (n, in_channels, h, w) -> (n, num_classes). First convolution and last layer are float. The
    whitening has frozen weights, which ``fit_whitening`` computes of training images, and a bias
    that learns. Batch norms have no learned scale.

    ``channels``    of the groups
    ``shortcut``    around every quantized convolution, as binary networks need; the float network
                    as published has none
    ``activation``  a name of ``ACTIVATIONS``, as published ``gelu``; ``None``: nothing where the
                    input quantizer has one or two bits, else ReLU

    1.97 million parameters and 118 million multiply-adds for CIFAR-10.

    Source: ``airbench94.py`` of KellerJordan/cifar10-airbench, Jordan 2024, "94% on CIFAR-10 in
    3.29 Seconds on a Single GPU"; the shortcuts are Bi-Real Net's.

    >>> q = {"input_quantization": "sign", "weight_quantization": "sign"}
    >>> Airbench(channels=(24, 32, 32), **q)(torch.randn(2, 3, 32, 32)).shape
    torch.Size([2, 10])
    """

    def __init__(
        self,
        in_channels: int = 3,
        num_classes: int = 10,
        *,
        channels: Sequence[int] = (64, 256, 256),
        shortcut: bool = True,
        activation: str | None = None,
        input_quantization: Spec = None,
        weight_quantization: Spec = None,
        gradient_cancellation_threshold: float | None = None,
        pad_value: float | None = None,
    ) -> None:
        super().__init__()
        options: dict[str, Any] = {
            "shortcut": shortcut,
            "activation": activation,
            "quantization": {
                "input_quantization": input_quantization,
                "weight_quantization": weight_quantization,
                "gradient_cancellation_threshold": gradient_cancellation_threshold,
                "pad_value": pad_value,
            },
        }
        before = first = 2 * 4 * in_channels
        self.whiten = nn.Conv2d(in_channels, before, 2)
        self.whiten.weight.requires_grad_(False)
        self.act = make_activation(activation, before, input_quantization)
        groups: list[nn.Module] = []
        for after in channels:
            if after < before and shortcut:
                raise ValueError(
                    f"with shortcuts the channels of Airbench do not shrink, from the {first} of "
                    f"the whitening on; got channels={tuple(channels)}: take larger ones, or "
                    "shortcut=False"
                )
            groups.append(ConvGroup(before, after, **options))
            before = after
        self.groups = nn.Sequential(*groups)
        self.fc = nn.Linear(before, num_classes, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.groups(self.act(self.whiten(x))).amax((2, 3)))

    @torch.no_grad()
    def fit_whitening(self, images: Tensor, added_variance: float = 5e-4) -> None:
        """Compute the first convolution's weights from images (n, in_channels, h, w).

        Its outputs are the projections on the eigenvectors of the mean outer product of 2 x 2
        patches, each divided by sqrt(eigenvalue + added_variance), and their negatives.
        """
        if images.ndim != 4 or images.shape[1] != self.whiten.in_channels:
            raise ValueError(
                f"images are (n, {self.whiten.in_channels}, h, w); got {tuple(images.shape)}"
            )
        patches = nn.functional.unfold(images.double(), 2).transpose(0, 1).flatten(1)
        moments, axes = torch.linalg.eigh(patches @ patches.T / patches.shape[1])
        filters = (axes / (moments + added_variance).sqrt()).T
        weight = torch.cat([filters, -filters]).view(self.whiten.weight.shape)
        self.whiten.weight.copy_(weight)
