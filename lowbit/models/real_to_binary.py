"""The network of Real-to-Binary convolutions."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from lowbit.models._blocks import chosen
from lowbit.nn import ChannelScale, LearnedScale, QConv2d
from lowbit.quantizers import Spec

# Keras' defaults: momentum .99 (torch's is its complement), eps 1e-3.
NORM: dict[str, float] = {"momentum": 0.01, "eps": 1e-3}


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, **NORM)  # type: ignore[arg-type]


class HalfBlock(nn.Module):
    """a = BN(x);  y = s(x) + PReLU(scale(conv(a)))

    conv is a quantized 3 x 3 convolution; s the identity or, where the shape changes, 2 x 2 mean -
    1 x 1 float convolution - BN. The scale of the convolution's channels is computed from a
    (``ChannelScale``), or learned for each channel, row and column (``LearnedScale``).
    x (n, before, h, w) -> (n, after, h / stride, w / stride), rounded up.
    """

    def __init__(
        self,
        before: int,
        after: int,
        stride: int,
        *,
        scale: str,
        side: int,
        quantization: dict[str, Any],
    ) -> None:
        super().__init__()
        self.bn = _norm(before)
        self.conv = QConv2d(before, after, 3, stride, 1, bias=False, **quantization)
        self.by_input = scale == "input"
        self.scale: nn.Module = (
            ChannelScale(before, after) if self.by_input else LearnedScale(after, side, side)
        )
        self.prelu = nn.PReLU(after)
        self.downsample: nn.Module = nn.Identity()
        if stride != 1 or before != after:
            self.downsample = nn.Sequential(
                nn.AvgPool2d(stride, ceil_mode=True, count_include_pad=False),
                nn.Conv2d(before, after, 1, bias=False),
                _norm(after),
            )

    def forward(self, x: Tensor) -> Tensor:
        a = self.bn(x)
        y = self.conv(a)
        y = self.scale(y, a) if self.by_input else self.scale(y)
        return self.prelu(y) + self.downsample(x)


class RealToBinaryNet(nn.Module):
    """ResNet-18 of half blocks, whose binary convolutions are scaled by their real-valued inputs.

        stem - 4 half blocks of 64 channels - 4 of 128 - 4 of 256 - 4 of 512 - mean - Linear

        stem         ``imagenet``: 7 x 7 of stride 2 - BN - PReLU - 3 x 3 max-pool of stride 2;
                     ``cifar``: 3 x 3 - BN - PReLU
        half block   x + PReLU(scale(conv(BN(x)))), each stage after the first at half the size

    x (n, in_channels, image_size, image_size) -> (n, num_classes).

    ``scale``      ``input``: sigmoid(W2 relu(W1 mean(a))), with an eighth of the channels between;
                   ``learned``: of the paper's strong baseline, as in XNOR-Net++
    ``width``      channels of the first stage, at least 8
    ``pad_value``  around quantized inputs; 0 as published
    ``image_size`` is read where ``scale="learned"``

    With the stem ``imagenet`` and 1000 classes 11.99 million parameters, of which 10,985,472 are
    of the quantized convolutions. The paper's real-valued teacher has the same structure, with
    tanh in place of the sign of inputs.

    Source: Real-to-Binary, Martinez et al. 2020; ``larq_zoo.literature.RealToBinaryNet``, whose
    batch norms (momentum 0.01, eps 1e-3) it has.

    >>> import torch
    >>> q = {"input_quantization": "ste_sign", "weight_quantization": "ste_sign"}
    >>> RealToBinaryNet(width=8, **q)(torch.randn(2, 3, 32, 32)).shape
    torch.Size([2, 10])
    """

    def __init__(
        self,
        in_channels: int = 3,
        num_classes: int = 10,
        image_size: int = 32,
        *,
        stem: str = "cifar",
        scale: str = "input",
        width: int = 64,
        input_quantization: Spec = None,
        weight_quantization: Spec = None,
        gradient_cancellation_threshold: float | None = None,
        pad_value: float | None = 0,
    ) -> None:
        super().__init__()
        chosen("stem", stem, ("cifar", "imagenet"))
        chosen("scale", scale, ("input", "learned"))
        options: dict[str, Any] = {
            "scale": scale,
            "quantization": {
                "input_quantization": input_quantization,
                "weight_quantization": weight_quantization,
                "gradient_cancellation_threshold": gradient_cancellation_threshold,
                "pad_value": pad_value,
            },
        }
        self.stem: nn.Module
        if stem == "cifar":
            conv = nn.Conv2d(in_channels, width, 3, padding=1, bias=False)
            self.stem = nn.Sequential(conv, _norm(width), nn.PReLU(width))
            side = image_size
        else:
            conv = nn.Conv2d(in_channels, width, 7, stride=2, padding=3, bias=False)
            pool = nn.MaxPool2d(3, 2, 1)
            self.stem = nn.Sequential(conv, _norm(width), nn.PReLU(width), pool)
            side = -(-image_size // 4)
        blocks: list[nn.Module] = []
        before = width
        for stage in range(4):
            after = width * 2**stage
            for half in range(4):
                stride = 2 if stage > 0 and half == 0 else 1
                side = -(-side // stride)
                blocks.append(HalfBlock(before, after, stride, side=side, **options))
                before = after
        self.blocks = nn.Sequential(*blocks)
        self.fc = nn.Linear(before, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.xavier_normal_(module.weight)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.blocks(self.stem(x)).mean((2, 3)))
