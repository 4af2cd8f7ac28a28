"""BinaryDenseNet, whose layers add channels instead of replacing them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lowbit.models._blocks import activation as make_activation
from lowbit.models._blocks import chosen
from lowbit.models._stems import STEMS, dense_stem
from lowbit.nn import QConv2d
from lowbit.quantizers import Spec

# depth -> layers of each stage, and what each transition divides the channels by
DEPTHS: dict[int, tuple[tuple[int, ...], tuple[float, ...]]] = {
    28: ((6, 6, 6, 5), (2.7, 2.7, 2.2)),
    37: ((6, 8, 12, 6), (3.3, 3.3, 4.0)),
    45: ((6, 12, 14, 8), (2.7, 3.3, 4.0)),
}


class DenseLayer(nn.Module):
    """[x, conv(BN(x))]: a quantized 3 x 3 convolution whose channels come behind those of x.

    (n, c, h, w) -> (n, c + growth, h, w).
    """

    def __init__(
        self, channels: int, growth: int, dilation: int, quantization: dict[str, Any]
    ) -> None:
        super().__init__()
        self.bn = nn.BatchNorm2d(channels)
        self.act = make_activation(None, channels, quantization["input_quantization"])
        self.conv = QConv2d(
            channels, growth, 3, padding=dilation, dilation=dilation, bias=False, **quantization
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, self.conv(self.act(self.bn(x)))], 1)


class BinaryDenseNet(nn.Module):
    """Stages of dense layers; stem, transitions and last layer are float.

        stem - stage - transition - stage - transition - stage - transition - stage
             - BN - ReLU - mean - Linear

        dense layer   [x, conv(BN(x))], with ``growth`` new channels
        transition    BN - 2 x 2 max-pool - ReLU - 1 x 1 to fewer channels

    A transition divides c channels by its reduction r, to the nearest multiple of 32:
    32 round(floor(c / r) / 32). x (n, in_channels, h, w) -> (n, num_classes).

    ``depth``      28, 37 or 45: the layers of the stages and the reductions of ``DEPTHS``
    ``stem``       ``cifar``, ``imagenet`` or ``grouped``: of ``_stems.py``
    ``dilated``    no pooling after the second stage, and 2 and 4 times wider spaced taps in the
                   third and fourth, so that the result is an eighth of the image instead of a
                   thirty-second
    ``growth``     channels of a layer; ``width`` those of the stem
    ``layers``, ``reductions``  of other networks than ``DEPTHS`` has; ``depth`` is then not read

    Between BN and convolution stands a ReLU where there is no input quantizer of one or two bits.
    With the stem ``imagenet`` and 1000 classes 5.13, 8.70 and 13.89 million parameters, of which
    4.20, 7.59 and 12.35 million are of the quantized convolutions.

    Source: Back to Simplicity, Bethge et al. 2019; ``basenet_dense.py`` of BMXNet 2, and
    ``larq_zoo.literature``. Quantizers as trained: ``{name: ste_sign, clip: 1.3}``.

    >>> model = BinaryDenseNet(depth=28, growth=8, width=16, input_quantization="sign")
    >>> model(torch.randn(2, 3, 32, 32)).shape
    torch.Size([2, 10])
    """

    def __init__(
        self,
        in_channels: int = 3,
        num_classes: int = 10,
        *,
        depth: int = 28,
        stem: str = "cifar",
        dilated: bool = False,
        growth: int = 64,
        width: int = 64,
        layers: Sequence[int] | None = None,
        reductions: Sequence[float] | None = None,
        input_quantization: Spec = None,
        weight_quantization: Spec = None,
        gradient_cancellation_threshold: float | None = None,
        pad_value: float | None = None,
    ) -> None:
        super().__init__()
        chosen("stem", stem, STEMS)
        if (layers is None) != (reductions is None):
            raise ValueError("layers and reductions go together; got one of them")
        if layers is None or reductions is None:
            if depth not in DEPTHS:
                raise ValueError(f"depth is one of {', '.join(map(str, DEPTHS))}; got {depth}")
            layers, reductions = DEPTHS[depth]
        check_stages(layers, reductions)
        quantization = {
            "input_quantization": input_quantization,
            "weight_quantization": weight_quantization,
            "gradient_cancellation_threshold": gradient_cancellation_threshold,
            "pad_value": pad_value,
        }
        dilations = [1, 1, 2, 4] if dilated else [1] * len(layers)
        if len(dilations) != len(layers):
            raise ValueError(f"a dilated network has four stages; got {len(layers)}")
        parts: list[nn.Module] = [dense_stem(stem, in_channels, width)]
        channels = width
        for index, (count, dilation) in enumerate(zip(layers, dilations, strict=True)):
            if index > 0:
                after = reduced(channels, reductions[index - 1])
                parts.append(transition(channels, after, pool=dilation == 1))
                channels = after
            for _ in range(count):
                parts.append(DenseLayer(channels, growth, dilation, quantization))
                channels += growth
        self.features = nn.Sequential(*parts, nn.BatchNorm2d(channels), nn.ReLU())
        self.fc = nn.Linear(channels, num_classes)
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.features(x).mean((2, 3)))


def check_stages(layers: Sequence[int], reductions: Sequence[float]) -> None:
    """Between stages there is a transition, and so a reduction."""
    if len(layers) == 0 or len(reductions) != len(layers) - 1:
        raise ValueError(
            f"between two stages there is one reduction; got {len(layers)} stages and "
            f"{len(reductions)} reductions"
        )


def reduced(channels: int, reduction: float) -> int:
    """32 round(floor(channels / reduction) / 32), but 32 at least.

    >>> reduced(448, 2.7), reduced(544, 2.7), reduced(576, 2.2)
    (160, 192, 256)
    """
    return max(32, round(channels // reduction / 32) * 32)


def transition(before: int, after: int, *, pool: bool = True, groups: int = 1) -> nn.Sequential:
    """BN - 2 x 2 max-pool - ReLU - 1 x 1 convolution, of ``groups`` groups behind a shuffle."""
    return nn.Sequential(
        nn.BatchNorm2d(before),
        nn.MaxPool2d(2) if pool else nn.Identity(),
        nn.ReLU(),
        ShuffleChannels(groups) if groups > 1 else nn.Identity(),
        nn.Conv2d(before, after, 1, groups=groups, bias=False),
    )


class ShuffleChannels(nn.Module):
    """Channel j of group i goes to place i of group j: (n, groups * k, h, w), shape kept.

    Source: ShuffleNet, Zhang et al. 2018.
    """

    def __init__(self, groups: int) -> None:
        super().__init__()
        self.groups = groups

    def forward(self, x: Tensor) -> Tensor:
        return x.unflatten(1, (self.groups, -1)).transpose(1, 2).flatten(1, 2)

    def extra_repr(self) -> str:
        return str(self.groups)


def initialise(model: nn.Module) -> None:
    """Glorot's normal weights in the quantized convolutions, He's in all others; biases 0."""
    for module in model.modules():
        if isinstance(module, QConv2d):
            nn.init.xavier_normal_(module.weight)
        elif isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
