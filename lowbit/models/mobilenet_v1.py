"""MobileNetV1."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from lowbit.models._blocks import activation as make_activation
from lowbit.nn import QConv2d
from lowbit.quantizers import Spec

# (channels, stride) of each pair of a depthwise and a 1 x 1 convolution
PAIRS = (
    *((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2)),
    *((512, 1), (512, 1), (512, 1), (512, 1), (512, 1), (1024, 2), (1024, 1)),
)


class MobileNetV1(nn.Module):
    """3 x 3 depthwise and 1 x 1 convolutions in turn, each followed by BN and activation.

        Conv 32, 3 x 3 of stride 2 - [ depthwise - 1 x 1 ] 13 times - mean - Linear

    x (n, in_channels, h, w) -> (n, num_classes). The quantizers are those of all convolutions but
    the first; the network is meant for 8 bits, by them or by ``lowbit.prepare``.

    ``multiplier``   of all channels: 1, 0.75, 0.5, 0.25
    ``stem_stride``  of the first convolution: 2 as published, 1 for small images
    ``activation``   a name of ``ACTIVATIONS``; None: ``relu6`` as published, and nothing before
                     quantizers of one or two bits, as a sign behind it is +1 everywhere
    ``dropout``      before the last layer

    With 1000 classes 4,231,976 parameters and, for an image of 224 x 224, 568.7 million
    multiply-adds.

    Source: Howard et al. 2017, "MobileNets"; ``mobilenet_v1.py`` of TensorFlow's slim, of which it
    has the eps of the batch norms, 1e-3, and not the momentum.

    >>> import torch
    >>> MobileNetV1(multiplier=0.25)(torch.randn(2, 3, 64, 64)).shape
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
        dropout: float = 0.0,
        input_quantization: Spec = None,
        weight_quantization: Spec = None,
        gradient_cancellation_threshold: float | None = None,
        pad_value: float | None = None,
    ) -> None:
        super().__init__()
        quantization: dict[str, Any] = {
            "input_quantization": input_quantization,
            "weight_quantization": weight_quantization,
            "gradient_cancellation_threshold": gradient_cancellation_threshold,
        }

        def normed(channels: int) -> list[nn.Module]:
            nonlinearity = make_activation(activation, channels, input_quantization, real="relu6")
            return [nn.BatchNorm2d(channels, eps=1e-3), nonlinearity]

        def scaled(channels: int) -> int:
            size = int(channels * multiplier)
            if size < 1:
                raise ValueError(f"multiplier={multiplier} leaves no channel of {channels}")
            return size

        before = scaled(32)
        layers: list[nn.Module] = [
            nn.Conv2d(in_channels, before, 3, stem_stride, 1, bias=False),
            *normed(before),
        ]
        for channels, stride in PAIRS:
            after = scaled(channels)
            depthwise = QConv2d(
                before,
                before,
                3,
                stride,
                1,
                groups=before,
                bias=False,
                pad_value=pad_value,
                **quantization,
            )
            point = QConv2d(before, after, 1, bias=False, **quantization)
            layers += [depthwise, *normed(before), point, *normed(after)]
            before = after
        self.features = nn.Sequential(*layers)
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(before, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.dropout(self.features(x).mean((2, 3))))
