"""MeliusNet: dense layers, each followed by one that improves what it added."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from lowbit.models._blocks import activation as make_activation
from lowbit.models._blocks import chosen
from lowbit.models._stems import STEMS, dense_stem
from lowbit.models.binary_densenet import DenseLayer, initialise, transition
from lowbit.nn import QConv2d
from lowbit.quantizers import Spec

# variant -> blocks of each stage, channels after each transition, groups of its convolution
VARIANTS: dict[str, tuple[tuple[int, ...], tuple[int, ...], int]] = {
    "22": ((4, 5, 4, 4), (160, 224, 256), 1),
    "29": ((4, 6, 8, 6), (128, 192, 256), 1),
    "42": ((5, 8, 14, 10), (160, 256, 416), 1),
    "59": ((6, 12, 24, 12), (192, 320, 544), 1),
    "a": ((4, 5, 5, 6), (160, 256, 288), 4),
    "b": ((4, 6, 8, 6), (160, 224, 320), 2),
    "c": ((3, 5, 10, 6), (128, 192, 288), 4),
}


class Improvement(nn.Module):
    """Adds conv(BN(x)), a quantized 3 x 3 convolution, to the last ``improved`` channels of x.

    (n, c, h, w), shape kept.
    """

    def __init__(self, channels: int, improved: int, quantization: dict[str, Any]) -> None:
        super().__init__()
        self.kept = channels - improved
        self.bn = nn.BatchNorm2d(channels)
        self.act = make_activation(None, channels, quantization["input_quantization"])
        self.conv = QConv2d(channels, improved, 3, padding=1, bias=False, **quantization)

    def forward(self, x: Tensor) -> Tensor:
        better = x[:, self.kept :] + self.conv(self.act(self.bn(x)))
        return torch.cat([x[:, : self.kept], better], 1)


class MeliusNet(nn.Module):
    """Blocks of a dense and an improvement layer; stem, transitions and last layer are float.

        stem - stage - transition - stage - transition - stage - transition - stage
             - BN - ReLU - mean - Linear

        block         dense layer: [x, conv(BN(x))], with ``growth`` new channels
                      improvement: conv(BN(x)) added to these
        transition    BN - 2 x 2 max-pool - ReLU - 1 x 1 to fewer channels; of a, b and c in groups,
                      behind a shuffle of the channels

    x (n, in_channels, h, w) -> (n, num_classes).

    ``variant``   22, 29, 42, 59, a, b or c: the numbers of ``VARIANTS``
    ``stem``      ``cifar``, ``imagenet`` or ``grouped``: of ``_stems.py``; published: ``grouped``
    ``growth``    channels of a layer, and ``width`` those of the stem; other numbers than the
                  published 64 keep those after the transitions

    Between BN and convolution stands a ReLU where there is no input quantizer of one or two bits.
    MeliusNet-22 has 6.94 million parameters with the stem ``grouped`` and 1000 classes, of which
    6,119,424 are of the quantized convolutions.

    Source: MeliusNet, Bethge et al. 2020; ``meliusnet.py`` of BMXNet 2. Quantizers as trained:
    ``{name: ste_sign, clip: 1.3}``.

    >>> model = MeliusNet(variant="c", growth=8, width=16, input_quantization="sign")
    >>> model(torch.randn(2, 3, 32, 32)).shape
    torch.Size([2, 10])
    """

    def __init__(
        self,
        in_channels: int = 3,
        num_classes: int = 10,
        *,
        variant: str = "22",
        stem: str = "cifar",
        growth: int = 64,
        width: int = 64,
        input_quantization: Spec = None,
        weight_quantization: Spec = None,
        gradient_cancellation_threshold: float | None = None,
        pad_value: float | None = None,
    ) -> None:
        super().__init__()
        chosen("stem", stem, STEMS)
        variant = str(variant).lower()
        chosen("variant", variant, tuple(VARIANTS))
        blocks, features, groups = VARIANTS[variant]
        quantization = {
            "input_quantization": input_quantization,
            "weight_quantization": weight_quantization,
            "gradient_cancellation_threshold": gradient_cancellation_threshold,
            "pad_value": pad_value,
        }
        parts: list[nn.Module] = [dense_stem(stem, in_channels, width)]
        channels = width
        for index, count in enumerate(blocks):
            if index > 0:
                parts.append(transition(channels, features[index - 1], groups=groups))
                channels = features[index - 1]
            for _ in range(count):
                parts.append(DenseLayer(channels, growth, 1, quantization))
                channels += growth
                parts.append(Improvement(channels, growth, quantization))
        self.features = nn.Sequential(*parts, nn.BatchNorm2d(channels), nn.ReLU())
        self.fc = nn.Linear(channels, num_classes)
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.features(x).mean((2, 3)))
