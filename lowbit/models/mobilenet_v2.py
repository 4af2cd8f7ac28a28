"""MobileNetV2."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from lowbit.models._blocks import activation as make_activation
from lowbit.nn import QConv2d
from lowbit.quantizers import Spec

# (expansion, channels, blocks, stride of the first)
STAGES = (
    *((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2)),
    *((6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)),
)


class InvertedResidual(nn.Module):
    """x + BN(project(f(BN(depthwise(f(BN(expand(x))))))))

    ``expand`` and ``project`` are 1 x 1, to ``expansion`` times the channels and back,
    ``depthwise`` is 3 x 3, f the activation. Without expansion the first is left out; x is added
    where the shape is kept. (n, before, h, w) -> (n, after, h / stride, w / stride), rounded up.
    """

    def __init__(
        self,
        before: int,
        after: int,
        stride: int,
        expansion: int,
        *,
        activation: str | None,
        quantization: dict[str, Any],
        pad_value: float | None,
    ) -> None:
        super().__init__()
        inner = before * expansion
        reads = quantization["input_quantization"]

        def normed(conv: nn.Module, channels: int) -> nn.Sequential:
            norm = nn.BatchNorm2d(channels)
            return nn.Sequential(
                conv, norm, make_activation(activation, channels, reads, real="relu6")
            )

        layers: list[nn.Module] = []
        if expansion != 1:
            layers.append(normed(QConv2d(before, inner, 1, bias=False, **quantization), inner))
        depthwise = QConv2d(
            inner,
            inner,
            3,
            stride,
            1,
            groups=inner,
            bias=False,
            pad_value=pad_value,
            **quantization,
        )
        project = QConv2d(inner, after, 1, bias=False, **quantization)
        self.conv = nn.Sequential(*layers, normed(depthwise, inner), project, nn.BatchNorm2d(after))
        self.keeps_shape = stride == 1 and before == after

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x) if self.keeps_shape else self.conv(x)


def _to_multiple_of_8(value: float) -> int:
    """The nearest multiple of 8, at least 8, and at least 0.9 of the value."""
    nearest = max(8, int(value + 4) // 8 * 8)
    return nearest + 8 if nearest < 0.9 * value else nearest


class MobileNetV2(nn.Module):
    """Inverted residuals: few channels between the blocks, many inside.

        Conv 32, 3 x 3 of stride 2 - 17 blocks - 1 x 1 to 1280 - mean - dropout - Linear

    x (n, in_channels, h, w) -> (n, num_classes). Every convolution is followed by BN and
    activation, the last of a block by BN alone. The quantizers are those of all convolutions but
    the first; the network is meant for 8 bits, by them or by ``lowbit.prepare``. Without
    quantizers it computes what torchvision's mobilenet_v2 does, and has the same names of
    parameters.

    ``multiplier``   of all channels, which are multiples of 8
    ``stem_stride``  of the first convolution: 2 as published, 1 for small images
    ``activation``   a name of ``ACTIVATIONS``; None: ``relu6`` as published, and nothing before
                     quantizers of one or two bits, as a sign behind it is +1 everywhere
    ``dropout``      before the last layer

    With 1000 classes 3,504,872 parameters and, for an image of 224 x 224, 300.8 million
    multiply-adds.

    Source: Sandler et al. 2018, "MobileNetV2"; ``mobilenetv2.py`` of torchvision.

    >>> import torch
    >>> MobileNetV2(multiplier=0.25)(torch.randn(2, 3, 64, 64)).shape
    torch.Size([2, 10])
    """

    def __init__(
        self,
        in_channels: int = 3,
        num_classes: int = 10,
        *,
        multiplier: float = 1.0,
        stem_stride: int = 2,
        activation: str | None = None,
        dropout: float = 0.2,
        input_quantization: Spec = None,
        weight_quantization: Spec = None,
        gradient_cancellation_threshold: float | None = None,
        pad_value: float | None = None,
    ) -> None:
        super().__init__()
        if multiplier <= 0:
            raise ValueError(f"multiplier must be above 0; got {multiplier}")
        quantization: dict[str, Any] = {
            "input_quantization": input_quantization,
            "weight_quantization": weight_quantization,
            "gradient_cancellation_threshold": gradient_cancellation_threshold,
        }

        def normed(conv: nn.Module, channels: int, read_by: Spec) -> nn.Sequential:
            nonlinearity = make_activation(activation, channels, read_by, real="relu6")
            return nn.Sequential(conv, nn.BatchNorm2d(channels), nonlinearity)

        before = _to_multiple_of_8(32 * multiplier)
        stem = nn.Conv2d(in_channels, before, 3, stem_stride, 1, bias=False)
        layers: list[nn.Module] = [normed(stem, before, input_quantization)]
        for expansion, channels, count, first in STAGES:
            after = _to_multiple_of_8(channels * multiplier)
            for index in range(count):
                layers.append(
                    InvertedResidual(
                        before,
                        after,
                        first if index == 0 else 1,
                        expansion,
                        activation=activation,
                        quantization=quantization,
                        pad_value=pad_value,
                    )
                )
                before = after
        last = _to_multiple_of_8(1280 * max(1.0, multiplier))
        point = QConv2d(before, last, 1, bias=False, **quantization)
        self.features = nn.Sequential(*layers, normed(point, last, None))
        self.classifier = nn.Sequential(nn.Dropout(dropout), nn.Linear(last, num_classes))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out")
            elif isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, 0, 0.01)
                nn.init.zeros_(module.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(x).mean((2, 3)))
