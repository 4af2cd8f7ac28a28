"""ResNet-18 for 32 x 32 and 224 x 224 images."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from lowbit.models._blocks import activation as make_activation
from lowbit.models._blocks import chosen
from lowbit.nn import QConv2d
from lowbit.quantizers import Spec


class BasicBlock(nn.Module):
    """Two quantized 3 x 3 convolutions with shortcuts.

    ``shortcut="conv"``    y = f(BN(conv1(x)) + s(x));  f(BN(conv2(y)) + y)
    ``shortcut="block"``   y = f(BN(conv1(x)));         f(BN(conv2(y)) + s(x))

    with f the activation and s the identity, or ``downsample`` where the shape changes.
    x (n, before, h, w) -> (n, after, h / stride, w / stride), rounded up.
    """

    def __init__(
        self,
        before: int,
        after: int,
        stride: int,
        *,
        shortcut: str,
        downsample: str,
        activation: str | None,
        quantization: dict[str, Any],
    ) -> None:
        super().__init__()
        reads = quantization["input_quantization"]
        self.shortcut = shortcut
        self.conv1 = QConv2d(before, after, 3, stride, 1, bias=False, **quantization)
        self.bn1 = nn.BatchNorm2d(after)
        self.act1 = make_activation(activation, after, reads)
        self.conv2 = QConv2d(after, after, 3, 1, 1, bias=False, **quantization)
        self.bn2 = nn.BatchNorm2d(after)
        self.act2 = make_activation(activation, after, reads)
        self.downsample: nn.Module = nn.Identity()
        if stride != 1 or before != after:
            self.downsample = _downsample(before, after, stride, downsample, quantization)

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn1(self.conv1(x))
        if self.shortcut == "conv":
            y = self.act1(y + self.downsample(x))
            return self.act2(self.bn2(self.conv2(y)) + y)
        return self.act2(self.bn2(self.conv2(self.act1(y))) + self.downsample(x))


def _downsample(
    before: int, after: int, stride: int, kind: str, quantization: dict[str, Any]
) -> nn.Sequential:
    """The shortcut where the shape changes, as the argument of ``ResNet18`` says."""
    norm = nn.BatchNorm2d(after)
    if kind == "float":
        return nn.Sequential(nn.Conv2d(before, after, 1, stride, bias=False), norm)
    if kind == "quantized":
        conv = QConv2d(before, after, 1, stride, bias=False, **quantization)
        return nn.Sequential(conv, norm)
    pool = nn.AvgPool2d(stride, ceil_mode=True, count_include_pad=False)
    return nn.Sequential(pool, nn.Conv2d(before, after, 1, bias=False), norm)


class ResNet18(nn.Module):
    """ResNet-18 with quantized 3 x 3 convolutions; first convolution and last layer float.

        stem - 2 blocks of 64 channels - 2 of 128 - 2 of 256 - 2 of 512 - mean - Linear

    each stage after the first at half the size. x (n, in_channels, h, w) -> (n, num_classes).

    ``stem``        ``cifar``: 3 x 3 convolution - BN - activation;
                    ``imagenet``: 7 x 7 of stride 2 - BN - activation - 3 x 3 max-pool of stride 2
    ``shortcut``    ``conv``: around every convolution (Bi-Real Net); ``block``: around two
    ``downsample``  of shortcuts that change shape: ``float`` 1 x 1 convolution of stride 2 - BN;
                    ``pool_float``: 2 x 2 mean, float 1 x 1 convolution - BN (Bi-Real Net);
                    ``quantized``: as ``float``, with the quantizers of the other layers
    ``activation``  a name of ``ACTIVATIONS``; ``None``: nothing where the input quantizer has
                    one or two bits, else ReLU
    ``width``       channels of the first stage

    11.17 million parameters with the stem ``cifar`` and 10 classes, 11.69 million with
    ``imagenet`` and 1000. Without quantizers and with ``shortcut="block"`` it computes what
    torchvision's resnet18 does, and has the same names of parameters.

    Source: He et al. 2016; Bi-Real Net, Liu et al. 2018.

    >>> import torch
    >>> model = ResNet18(width=8, input_quantization="sign", weight_quantization="sign")
    >>> model(torch.randn(2, 3, 32, 32)).shape
    torch.Size([2, 10])
    """

    def __init__(
        self,
        in_channels: int = 3,
        num_classes: int = 10,
        *,
        stem: str = "cifar",
        shortcut: str = "conv",
        downsample: str = "float",
        activation: str | None = None,
        width: int = 64,
        input_quantization: Spec = None,
        weight_quantization: Spec = None,
        gradient_cancellation_threshold: float | None = None,
        pad_value: float | None = None,
    ) -> None:
        super().__init__()
        chosen("stem", stem, ("cifar", "imagenet"))
        chosen("shortcut", shortcut, ("conv", "block"))
        chosen("downsample", downsample, ("float", "pool_float", "quantized"))
        quantization = {
            "input_quantization": input_quantization,
            "weight_quantization": weight_quantization,
            "gradient_cancellation_threshold": gradient_cancellation_threshold,
            "pad_value": pad_value,
        }

        def stage(before: int, after: int, stride: int) -> nn.Sequential:
            options: dict[str, Any] = {
                "shortcut": shortcut,
                "downsample": downsample,
                "activation": activation,
                "quantization": quantization,
            }
            return nn.Sequential(
                BasicBlock(before, after, stride, **options),
                BasicBlock(after, after, 1, **options),
            )

        if stem == "cifar":
            self.conv1 = nn.Conv2d(in_channels, width, 3, padding=1, bias=False)
        else:
            self.conv1 = nn.Conv2d(in_channels, width, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.act1 = make_activation(activation, width, input_quantization)
        self.pool = nn.MaxPool2d(3, 2, 1) if stem == "imagenet" else nn.Identity()
        self.layer1 = stage(width, width, 1)
        self.layer2 = stage(width, 2 * width, 2)
        self.layer3 = stage(2 * width, 4 * width, 2)
        self.layer4 = stage(4 * width, 8 * width, 2)
        self.fc = nn.Linear(8 * width, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(self.act1(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(x.mean((2, 3)))
