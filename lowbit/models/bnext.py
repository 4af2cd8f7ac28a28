"""BNext: a binary MobileNet whose convolutions are gated by what they read and what they make."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lowbit.models._blocks import chosen
from lowbit.nn import ChannelMix, ChannelScale, QConv2d
from lowbit.quantizers import Spec

# size -> channels of the stem, blocks of each stage after the first block
SIZES: dict[str, tuple[int, tuple[int, ...]]] = {
    "tiny": (32, (2, 2, 6, 2)),
    "small": (48, (2, 2, 6, 2)),
    "middle": (48, (4, 4, 8, 4)),
    "large": (48, (4, 4, 16, 4)),
    "super": (64, (4, 4, 16, 4)),
}


class Recoupled(nn.Module):
    """A quantized convolution, gated by a mix of its input and its output, and a shortcut.

        y = PReLU(BN(conv(x)));   z = g y,  g = sigmoid(W2 relu(W1 mean(s p(x) + (1 - s) y)))

        BN(z) + p(x)               where not ``multiplies``
        BN(z r) + r                where it does, with r = p(PReLU(x))

    s is the learned share of a ``ChannelMix``, p the identity or, where ``stride`` is 2, the
    2 x 2 mean. W1 and W2, of a ``ChannelScale``, have biases and an eighth of the channels between.
    x (n, channels, h, w) -> (n, channels, h / stride, w / stride), rounded up.
    """

    def __init__(
        self,
        channels: int,
        kernel: int,
        stride: int,
        *,
        multiplies: bool,
        quantization: dict[str, Any],
    ) -> None:
        super().__init__()
        self.conv = QConv2d(
            channels, channels, kernel, stride, kernel // 2, bias=False, **quantization
        )
        self.bn = nn.BatchNorm2d(channels)
        self.act = nn.PReLU(channels)
        self.mix = ChannelMix(channels)
        self.scale = ChannelScale(channels, channels, min(8, channels), bias=True)
        self.out_bn = nn.BatchNorm2d(channels)
        self.pool: nn.Module = nn.Identity()
        if stride == 2:
            self.pool = nn.AvgPool2d(2, ceil_mode=True, count_include_pad=False)
        self.multiplies = multiplies
        if multiplies:
            self.shortcut_act = nn.PReLU(channels)
        nn.init.normal_(self.conv.weight, 0.0, 1e-3)
        for layer in (self.scale.reduce, self.scale.expand):
            layer.reset_parameters()

    def forward(self, x: Tensor) -> Tensor:
        pooled = self.pool(x)
        y = self.act(self.bn(self.conv(x)))
        z = self.scale(y, self.mix(pooled, y))
        if not self.multiplies:
            return self.out_bn(z) + pooled
        shortcut = self.pool(self.shortcut_act(x))
        return self.out_bn(z * shortcut) + shortcut


class BNextBlock(nn.Module):
    """A 3 x 3 ``Recoupled``, then a 1 x 1, or two, side by side, where the channels double.

    x (n, before, h, w) -> (n, after, h / stride, w / stride), rounded up; after is before or
    twice that.
    """

    def __init__(
        self,
        before: int,
        after: int,
        stride: int,
        *,
        multiplies: bool,
        quantization: dict[str, Any],
    ) -> None:
        super().__init__()
        self.conv = Recoupled(before, 3, stride, multiplies=multiplies, quantization=quantization)
        self.points = nn.ModuleList(
            Recoupled(before, 1, 1, multiplies=False, quantization=quantization)
            for _ in range(after // before)
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        return torch.cat([point(x) for point in self.points], 1)


class BNext(nn.Module):
    """BNext: quantized 3 x 3 and 1 x 1 convolutions, each gated by what it reads and makes.

        3 x 3 of stride 2 - BN - block - stage - stage - stage - stage - PReLU - mean - Linear

        block   Recoupled(3 x 3), adding in the first block, multiplying in the second, in turns;
                then an adding Recoupled(1 x 1), or two, whose outputs are concatenated, where the
                channels double: in the first block and at the head of each stage, which, but for
                the first block, has half the size as well

    x (n, in_channels, h, w) -> (n, num_classes). First convolution and last layer are float.

    ``size``         tiny, small, middle, large or super: the numbers of ``SIZES``; super is the
                     published BNext-L
    ``width``        channels of the stem; the stages' are 4, 8, 16 and 32 times that
    ``blocks``       of each stage; for both, ``None`` is the size's own
    ``stem_stride``  of the first convolution: 2 as published, 1 for small images
    ``pad_value``    around quantized inputs; 0 as published

    With 1000 classes and input quantizer ``rsign`` tiny has 30.85 million parameters, of which
    28,253,184 are of the quantized convolutions; for an image of 224 x 224 4.82 billion binary and
    13.3 million float multiply-adds.

    Source: BNext, Guo et al. 2022; ``src/bnext.py`` of its repository, without the PReLUs there
    that nothing calls. Quantizers as trained: ``{name: rsign, clip: 1.5}`` for inputs and
    ``{name: progressive_sign, final: 0.9^epochs, eps: 1e-7}`` for weights.

    >>> q = {"input_quantization": "rsign", "weight_quantization": "ste_sign"}
    >>> BNext(width=8, blocks=(1, 2), **q)(torch.randn(2, 3, 32, 32)).shape
    torch.Size([2, 10])
    """

    def __init__(
        self,
        in_channels: int = 3,
        num_classes: int = 10,
        *,
        size: str = "tiny",
        width: int | None = None,
        blocks: Sequence[int] | None = None,
        stem_stride: int = 2,
        input_quantization: Spec = None,
        weight_quantization: Spec = None,
        gradient_cancellation_threshold: float | None = None,
        pad_value: float | None = 0,
    ) -> None:
        super().__init__()
        chosen("size", size, tuple(SIZES))
        before = SIZES[size][0] if width is None else width
        counts = SIZES[size][1] if blocks is None else blocks
        if isinstance(counts, int) or any(count < 1 for count in counts):
            raise ValueError(f"blocks is a list of at least 1 for each stage; got {blocks!r}")
        quantization = {
            "input_quantization": input_quantization,
            "weight_quantization": weight_quantization,
            "gradient_cancellation_threshold": gradient_cancellation_threshold,
            "pad_value": pad_value,
        }
        self.stem = nn.Sequential(
            nn.Conv2d(in_channels, before, 3, stem_stride, 1, bias=False), nn.BatchNorm2d(before)
        )
        parts: list[nn.Module] = []
        for stage, count in enumerate([1, *counts]):
            for index in range(count):
                heads = index == 0
                after = 2 * before if heads else before
                parts.append(
                    BNextBlock(
                        before,
                        after,
                        2 if heads and stage > 0 else 1,
                        multiplies=len(parts) % 2 == 1,
                        quantization=quantization,
                    )
                )
                before = after
        self.blocks = nn.Sequential(*parts)
        self.act = nn.PReLU(before)
        self.fc = nn.Linear(before, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.act(self.blocks(self.stem(x))).mean((2, 3)))
