"""Residual blocks of two quantized convolutions, and what their shortcuts do to a shape."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from lowbit.models._blocks import activation as make_activation
from lowbit.nn import QConv2d

DOWNSAMPLES = ("float", "pool_float", "quantized", "pad", "pool_pad")


class PadChannels(nn.Module):
    """As many zero channels in front of x as behind it, ``more`` in all (the odd one behind).

    (n, c, h, w) -> (n, c + more, h / stride, w / stride), rounded up: of each stride the first
    value is kept.
    """

    def __init__(self, more: int, stride: int = 1) -> None:
        super().__init__()
        self.more, self.stride = more, stride

    def forward(self, x: Tensor) -> Tensor:
        if self.stride > 1:
            x = x[:, :, :: self.stride, :: self.stride]
        front = self.more // 2
        return F.pad(x, (0, 0, 0, 0, front, self.more - front))

    def extra_repr(self) -> str:
        return f"{self.more}, stride={self.stride}"


def shortcut_to(
    before: int, after: int, stride: int, kind: str, quantization: dict[str, Any]
) -> nn.Module:
    """The shortcut where the shape changes, by one of the names of ``DOWNSAMPLES``.

    ``float``       1 x 1 convolution of the stride - BN
    ``pool_float``  mean of stride x stride - 1 x 1 convolution - BN
    ``quantized``   as ``float``, with the quantizers of the other layers
    ``pad``         every stride-th value - zero channels around (He et al., option A)
    ``pool_pad``    mean of stride x stride - zero channels around
    """
    pool = nn.AvgPool2d(stride, ceil_mode=True, count_include_pad=False)
    if kind == "pad":
        return PadChannels(after - before, stride)
    if kind == "pool_pad":
        return nn.Sequential(pool, PadChannels(after - before))
    norm = nn.BatchNorm2d(after)
    if kind == "float":
        return nn.Sequential(nn.Conv2d(before, after, 1, stride, bias=False), norm)
    if kind == "quantized":
        conv = QConv2d(before, after, 1, stride, bias=False, **quantization)
        return nn.Sequential(conv, norm)
    return nn.Sequential(pool, nn.Conv2d(before, after, 1, bias=False), norm)


class BasicBlock(nn.Module):
    """Two quantized 3 x 3 convolutions with shortcuts.

    ``shortcut="conv"``    y = f(BN(conv1(x)) + s(x));  f(BN(conv2(y)) + y)
    ``shortcut="block"``   y = f(BN(conv1(x)));         f(BN(conv2(y)) + s(x))

    with f the activation and s the identity, or ``downsample`` where the shape changes.
    ``act_first``: BN(f(conv(x))) in place of each BN(conv(x)), and no f behind an addition.
    ``real_input``: conv1 quantizes its weights alone.
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
        act_first: bool = False,
        real_input: bool = False,
    ) -> None:
        super().__init__()
        reads = quantization["input_quantization"]
        of_first = {**quantization, "input_quantization": None} if real_input else quantization
        self.shortcut = shortcut
        self.act_first = act_first
        self.conv1 = QConv2d(before, after, 3, stride, 1, bias=False, **of_first)
        self.bn1 = nn.BatchNorm2d(after)
        self.act1 = make_activation(activation, after, reads)
        self.conv2 = QConv2d(after, after, 3, 1, 1, bias=False, **quantization)
        self.bn2 = nn.BatchNorm2d(after)
        self.act2 = make_activation(activation, after, reads)
        self.downsample: nn.Module = nn.Identity()
        if stride != 1 or before != after:
            self.downsample = shortcut_to(before, after, stride, downsample, quantization)

    def forward(self, x: Tensor) -> Tensor:
        if self.act_first:
            y = self.bn1(self.act1(self.conv1(x)))
            s = self.downsample(x)
            if self.shortcut == "conv":
                y = s = y + s
            return self.bn2(self.act2(self.conv2(y))) + s
        y = self.bn1(self.conv1(x))
        if self.shortcut == "conv":
            y = self.act1(y + self.downsample(x))
            return self.act2(self.bn2(self.conv2(y)) + y)
        return self.act2(self.bn2(self.conv2(self.act1(y))) + self.downsample(x))


class PreActivationBlock(nn.Module):
    """Two quantized 3 x 3 convolutions, each behind its batch norm and activation.

    ``shortcut="block"``   a = f(BN(x));  conv2(f(BN(conv1(a)))) + s
    ``shortcut="conv"``    a = f(BN(x));  y = conv1(a) + s;  conv2(f(BN(y))) + y

    with f the activation. s is x, or ``downsample`` where the shape changes: of a where it has a
    convolution, of x where it has none. ``pre_norm=False`` leaves out the first batch norm and
    activation: a = x, for a block that stands behind both. ``block_norm`` has a BN of conv2 before
    the addition. ``real_input`` and shapes as in ``BasicBlock``.
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
        pre_norm: bool = True,
        block_norm: bool = False,
        real_input: bool = False,
    ) -> None:
        super().__init__()
        reads = quantization["input_quantization"]
        of_first = {**quantization, "input_quantization": None} if real_input else quantization
        first_reads = of_first["input_quantization"]
        self.shortcut = shortcut
        self.bn1: nn.Module = nn.BatchNorm2d(before) if pre_norm else nn.Identity()
        self.act1 = make_activation(activation if pre_norm else "identity", before, first_reads)
        self.conv1 = QConv2d(before, after, 3, stride, 1, bias=False, **of_first)
        self.bn2 = nn.BatchNorm2d(after)
        self.act2 = make_activation(activation, after, reads)
        self.conv2 = QConv2d(after, after, 3, 1, 1, bias=False, **quantization)
        self.bn3: nn.Module = nn.BatchNorm2d(after) if block_norm else nn.Identity()
        self.downsample: nn.Module = nn.Identity()
        self.shortcut_reads_a = False
        if stride != 1 or before != after:
            self.downsample = shortcut_to(before, after, stride, downsample, quantization)
            self.shortcut_reads_a = downsample not in ("pad", "pool_pad")

    def forward(self, x: Tensor) -> Tensor:
        a = self.act1(self.bn1(x))
        s = self.downsample(a if self.shortcut_reads_a else x)
        y = self.conv1(a)
        if self.shortcut == "conv":
            y = y + s
            s = y
        return self.bn3(self.conv2(self.act2(self.bn2(y)))) + s
