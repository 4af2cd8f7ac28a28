"""PokeBNN, a binary ResNet-50 with a shortcut around every convolution."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lowbit.models._blocks import chosen
from lowbit.nn import DPReLU, QConv2d, QLinear
from lowbit.quantizers import Spec

# Channels of the bottlenecks in each stage, before the multiplier.
WIDTHS = (64, 128, 256, 512)
STEM = 64


class Shortcut(nn.Module):
    """x in another shape, without parameters: (n, before, h, w) -> (n, after, h / s, w / s).

    fewer channels   the means of ``before // after`` neighbours; what is left over is dropped
    more channels    ``zeros``: zeros behind them; ``tile``: all of them again and again
    s = 2            3 x 3 means of stride 2, of which the zeros around x are a part; sizes are
                     rounded up
    """

    def __init__(self, before: int, after: int, stride: int, more: str = "zeros") -> None:
        super().__init__()
        chosen("more", more, ("zeros", "tile"))
        if more == "tile" and before < after and after % before != 0:
            raise ValueError(
                f"a shortcut repeats its {before} channels, which does not make {after}: give "
                "PokeBNN a multiplier such as 0.25, 0.5, 0.75, 1, 1.25"
            )
        self.before, self.after, self.more = before, after, more
        self.pool: nn.Module = nn.AvgPool2d(3, 2, 1) if stride == 2 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        if self.before > self.after:
            neighbours = self.before // self.after
            x = x[:, : self.after * neighbours].unflatten(1, (self.after, neighbours)).mean(2)
        elif self.before < self.after and self.more == "tile":
            x = torch.cat([x] * (self.after // self.before), 1)
        elif self.before < self.after:
            x = F.pad(x, (0, 0, 0, 0, 0, self.after - self.before))
        return self.pool(x)

    def extra_repr(self) -> str:
        return f"{self.before}, {self.after}, more={self.more!r}"


class SqueezeExcite(nn.Module):
    """Scale the channels of x by what another map a is: x hardsigmoid(W2 relu(W1 mean(a))).

    x (n, after, h, w) and a (n, before, h', w') -> (n, after, h, w); W1 gives ``before // 8``
    values. Both have biases, and are linear layers where the paper has 1 x 1 convolutions of a
    map of one place. Their inputs are quantized by ``read`` and ``read_hidden``, weights by
    ``weight``.
    """

    def __init__(
        self, before: int, after: int, *, read: Spec, read_hidden: Spec, weight: Spec
    ) -> None:
        super().__init__()
        hidden = before // 8
        self.reduce = QLinear(before, hidden, input_quantization=read, weight_quantization=weight)
        self.relu = nn.ReLU()
        self.expand = QLinear(
            hidden, after, input_quantization=read_hidden, weight_quantization=weight
        )
        self.gate = nn.Hardsigmoid()

    def forward(self, x: Tensor, a: Tensor) -> Tensor:
        scale = self.gate(self.expand(self.relu(self.reduce(a.mean((2, 3))))))
        return x * scale[:, :, None, None]


class PokeConv(nn.Module):
    """BN(SE(DPReLU(BN(conv(x)) + s(x) + t(r)), x)), with conv quantized and s, t shortcuts.

    x (n, before, h, w) -> (n, after, h / stride, w / stride), rounded up. s adds zero channels.
    Where ``around``, the channels and the stride from r to the result, is given, r is the input
    of the block, t repeats its channels, and the first BN starts with the scale 0.
    """

    def __init__(
        self,
        before: int,
        after: int,
        kernel_size: int,
        stride: int = 1,
        *,
        around: tuple[int, int] | None = None,
        quantization: dict[str, Any],
        se: dict[str, Spec],
    ) -> None:
        super().__init__()
        self.conv = QConv2d(
            before, after, kernel_size, stride, kernel_size // 2, bias=False, **quantization
        )
        self.bn = nn.BatchNorm2d(after)
        self.local = Shortcut(before, after, stride)
        self.around: nn.Module | None = None
        if around is not None:
            channels, whole_stride = around
            self.around = Shortcut(channels, after, whole_stride, "tile")
            nn.init.zeros_(self.bn.weight)
        self.act = DPReLU(after)
        self.se = SqueezeExcite(before, after, **se)
        self.bn_end = nn.BatchNorm2d(after)

    def forward(self, x: Tensor, r: Tensor | None = None) -> Tensor:
        y = self.bn(self.conv(x)) + self.local(x)
        if self.around is not None:
            y = y + self.around(r)
        return self.bn_end(self.se(self.act(y), x))


class PokeBottleneck(nn.Module):
    """PokeConvs of 1 x 1, 3 x 3 with the stride, and 1 x 1 to four times the channels.

    x (n, before, h, w) -> (n, 4 channels, h / stride, w / stride), rounded up.
    """

    def __init__(self, before: int, channels: int, stride: int, **options: Any) -> None:
        super().__init__()
        self.conv1 = PokeConv(before, channels, 1, **options)
        self.conv2 = PokeConv(channels, channels, 3, stride, **options)
        self.conv3 = PokeConv(channels, 4 * channels, 1, around=(before, stride), **options)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv3(self.conv2(self.conv1(x)), x)


class PokeBNN(nn.Module):
    """ResNet-50 of binary convolutions, each with a shortcut, a DPReLU and a squeeze-and-excite.

        stem - 3 bottlenecks of 64 channels - 4 of 128 - 6 of 256 - 3 of 512 - mean - Linear

        stem         4 x 4 of stride 4 to 32 channels - BN - DPReLU - 3 x 3 in 32 groups to 64
                     channels - BN - DPReLU
        bottleneck   PokeConv 1 x 1 - PokeConv 3 x 3 - PokeConv 1 x 1 to four times the channels
        PokeConv     BN(SE(DPReLU(BN(conv(x)) + x), x)), and + the bottleneck's input in the third

    Each stage after the first begins with half the size. Shortcuts have no parameters: fewer
    channels are means of neighbours, more are zeros, or repeated around a bottleneck; half the
    size are 3 x 3 means. x (n, in_channels, h, w) -> (n, num_classes).

    ``multiplier``  of the bottlenecks' channels, 1 in PokeBNN-1.0x; the stem's stay
    ``layers``      bottlenecks of each stage
    ``stem_groups`` channels of the stem's first convolution, groups of its second
    ``end_…_quantization``  of stem and last layer, 8 bits as published
    ``se_…_quantization``   of the squeeze-and-excites, 4 bits as published; ``hidden``: of the
                    input of the second layer, which is behind a ReLU
    ``pad_value``   around quantized inputs; 0 as published

    With 1000 classes 26.57 million parameters, of which 20,676,608 are of the quantized
    convolutions. For an image of 224 x 224 3.61 billion binary multiply-adds, and with the
    published bits 4.22 ACE: billions of multiply-adds, each times the bits of its input and of its
    weight. With multiplier 0.75 they are 2.59, the abstract's 2.6 with 70.5 %.

    Where a size is even, windows of stride 2 begin in a padded row and column, and the authors'
    SAME padding ends in one. Of images with sides of a multiple of 4, ours are their scores of the
    image turned by 180 degrees, with all kernels turned.

    Source: PokeBNN, Zhang et al. 2022; ``jax_legacy/jax/imagenet/pokebnn.py`` of google/aqt,
    whose initialisation (truncated normal of variance 1 / inputs) it has.

    >>> q = {"input_quantization": {"name": "ste_sign", "clip": 3}, "weight_quantization": "sign"}
    >>> PokeBNN(multiplier=0.25, layers=(1, 1, 1, 1), **q)(torch.randn(2, 3, 32, 32)).shape
    torch.Size([2, 10])
    """

    def __init__(
        self,
        in_channels: int = 3,
        num_classes: int = 10,
        *,
        multiplier: float = 1.0,
        layers: Sequence[int] = (3, 4, 6, 3),
        stem_groups: int = 32,
        end_input_quantization: Spec = None,
        end_weight_quantization: Spec = None,
        se_input_quantization: Spec = None,
        se_hidden_quantization: Spec = None,
        se_weight_quantization: Spec = None,
        input_quantization: Spec = None,
        weight_quantization: Spec = None,
        gradient_cancellation_threshold: float | None = None,
        pad_value: float | None = 0,
    ) -> None:
        super().__init__()
        if not 1 <= len(layers) <= len(WIDTHS):
            raise ValueError(f"layers are of one to four stages; got {tuple(layers)}")
        if stem_groups < 1 or STEM % stem_groups:
            raise ValueError(f"stem_groups divides the stem's {STEM} channels; got {stem_groups}")
        if int(WIDTHS[0] * multiplier) < 8:
            raise ValueError(
                f"multiplier must leave 8 of the first stage's {WIDTHS[0]} channels, of which the "
                f"squeeze-and-excite keeps an eighth; got {multiplier}"
            )
        end: dict[str, Any] = {
            "input_quantization": end_input_quantization,
            "weight_quantization": end_weight_quantization,
        }
        options: dict[str, Any] = {
            "quantization": {
                "input_quantization": input_quantization,
                "weight_quantization": weight_quantization,
                "gradient_cancellation_threshold": gradient_cancellation_threshold,
                "pad_value": pad_value,
            },
            "se": {
                "read": se_input_quantization,
                "read_hidden": se_hidden_quantization,
                "weight": se_weight_quantization,
            },
        }
        self.stem = nn.Sequential(
            QConv2d(in_channels, stem_groups, 4, 4, bias=False, **end),
            nn.BatchNorm2d(stem_groups),
            DPReLU(stem_groups),
            QConv2d(stem_groups, STEM, 3, padding=1, groups=stem_groups, bias=False, **end),
            nn.BatchNorm2d(STEM),
            DPReLU(STEM),
        )
        blocks: list[nn.Module] = []
        before = STEM
        for stage, (width, count) in enumerate(zip(WIDTHS, layers, strict=False)):
            channels = int(width * multiplier)
            for index in range(count):
                stride = 2 if stage > 0 and index == 0 else 1
                blocks.append(PokeBottleneck(before, channels, stride, **options))
                before = 4 * channels
        self.blocks = nn.Sequential(*blocks)
        self.fc = QLinear(before, num_classes, **end)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                # Cut at two deviations, a normal distribution keeps 0.8796 of its deviation.
                std = 1 / math.sqrt(module.weight[0].numel()) / 0.87962566103423978
                nn.init.trunc_normal_(module.weight, 0.0, std, -2 * std, 2 * std)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.blocks(self.stem(x)).mean((2, 3)))
