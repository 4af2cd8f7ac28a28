"""Residual networks of bottlenecks: ResNet-50, -101 and -152."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from lowbit.models._blocks import activation as make_activation
from lowbit.models._blocks import chosen
from lowbit.models._residual import DOWNSAMPLES, shortcut_to
from lowbit.nn import QConv2d
from lowbit.quantizers import Spec

# depth -> blocks of each stage
STAGES = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
EXPANSION = 4  # of a block's channels over those of its 3 x 3 convolution


class Bottleneck(nn.Module):
    """f(BN(conv3(f(BN(conv2(f(BN(conv1(x)))))))) + s(x))

    conv1 and conv3 are 1 x 1, to ``inner`` channels and to four times as many, conv2 is 3 x 3, f
    the activation, s the identity or ``downsample`` where the shape changes. ``strided`` names
    the convolution that halves the size. x (n, before, h, w) -> (n, 4 inner, h / stride,
    w / stride), rounded up.
    """

    def __init__(
        self,
        before: int,
        inner: int,
        stride: int,
        *,
        strided: str,
        downsample: str,
        activation: str | None,
        quantization: dict[str, Any],
        pad_value: float | None,
    ) -> None:
        super().__init__()
        reads = quantization["input_quantization"]
        first, second = (stride, 1) if strided == "conv1" else (1, stride)
        after = EXPANSION * inner
        self.conv1 = QConv2d(before, inner, 1, first, bias=False, **quantization)
        self.bn1 = nn.BatchNorm2d(inner)
        self.act1 = make_activation(activation, inner, reads)
        self.conv2 = QConv2d(
            inner, inner, 3, second, 1, bias=False, pad_value=pad_value, **quantization
        )
        self.bn2 = nn.BatchNorm2d(inner)
        self.act2 = make_activation(activation, inner, reads)
        self.conv3 = QConv2d(inner, after, 1, bias=False, **quantization)
        self.bn3 = nn.BatchNorm2d(after)
        self.downsample: nn.Module = nn.Identity()
        if stride != 1 or before != after:
            self.downsample = shortcut_to(before, after, stride, downsample, quantization)
        self.act3 = make_activation(activation, after, reads)

    def forward(self, x: Tensor) -> Tensor:
        y = self.act1(self.bn1(self.conv1(x)))
        y = self.act2(self.bn2(self.conv2(y)))
        return self.act3(self.bn3(self.conv3(y)) + self.downsample(x))


class BottleneckResNet(nn.Module):
    """Residual network of bottlenecks; first convolution and last layer are float.

        7 x 7 of stride 2 to 64 channels - BN - activation - 3 x 3 max-pool of stride 2
        - four stages of bottlenecks - mean - Linear

    x (n, in_channels, h, w) -> (n, num_classes). The quantizers are those of all other
    convolutions; the network is meant for 8 bits, by them or by ``lowbit.prepare``. Without
    quantizers it computes what torchvision's networks do, and has the same names of parameters.

    ``depth``       50, 101 or 152
    ``stem``        ``imagenet`` as above; ``cifar``: 3 x 3 - BN - activation
    ``strided``     which convolution halves the size: ``conv2``, the 3 x 3, as in torchvision
                    ("v1.5"); ``conv1``, as He et al. and Keras
    ``downsample``  of shortcuts that change shape, a name of ``ResNet``'s: ``quantized``: 1 x 1
                    convolution of the stride, quantized as the others, - BN; ``float``: without
                    quantizers; …
    ``width``       channels of the first stage's 3 x 3 convolutions
    ``activation``  a name of ``ACTIVATIONS``; ``None``: nothing where the input quantizer has
                    one or two bits, else ReLU

    With 1000 classes depth 50 has 25,557,032 parameters and, for an image of 224 x 224, 4.09
    billion multiply-adds (3.86 with ``strided="conv1"``).

    Source: He et al. 2016, "Deep residual learning"; ``resnet.py`` of torchvision.

    >>> import torch
    >>> BottleneckResNet(width=4)(torch.randn(2, 3, 64, 64)).shape
    torch.Size([2, 10])
    """

    def __init__(
        self,
        in_channels: int = 3,
        num_classes: int = 10,
        *,
        depth: int = 50,
        stem: str = "imagenet",
        strided: str = "conv2",
        downsample: str = "quantized",
        width: int = 64,
        activation: str | None = None,
        input_quantization: Spec = None,
        weight_quantization: Spec = None,
        gradient_cancellation_threshold: float | None = None,
        pad_value: float | None = None,
    ) -> None:
        super().__init__()
        if depth not in STAGES:
            known = ", ".join(str(known) for known in STAGES)
            raise ValueError(f"depth is one of {known}; got {depth} (ResNet has 18 and 34)")
        chosen("stem", stem, ("imagenet", "cifar"))
        chosen("strided", strided, ("conv1", "conv2"))
        chosen("downsample", downsample, DOWNSAMPLES)
        options: dict[str, Any] = {
            "strided": strided,
            "downsample": downsample,
            "activation": activation,
            "pad_value": pad_value,
            "quantization": {
                "input_quantization": input_quantization,
                "weight_quantization": weight_quantization,
                "gradient_cancellation_threshold": gradient_cancellation_threshold,
            },
        }
        self.pool: nn.Module = nn.Identity()
        if stem == "imagenet":
            self.conv1 = nn.Conv2d(in_channels, width, 7, 2, 3, bias=False)
            self.pool = nn.MaxPool2d(3, 2, 1)
        else:
            self.conv1 = nn.Conv2d(in_channels, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.act1 = make_activation(activation, width, input_quantization)
        before = width
        self.names = [f"layer{index + 1}" for index in range(4)]
        for index, (name, count) in enumerate(zip(self.names, STAGES[depth], strict=True)):
            inner = width * 2**index
            blocks: list[nn.Module] = []
            for block in range(count):
                stride = 2 if index > 0 and block == 0 else 1
                blocks.append(Bottleneck(before, inner, stride, **options))
                before = EXPANSION * inner
            setattr(self, name, nn.Sequential(*blocks))
        self.fc = nn.Linear(before, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(self.act1(self.bn1(self.conv1(x))))
        for name in self.names:
            x = getattr(self, name)(x)
        return self.fc(x.mean((2, 3)))
