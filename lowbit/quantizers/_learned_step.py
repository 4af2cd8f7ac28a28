"""What the methods with a learned step size share."""

import math

import torch
from torch import Tensor, nn

from lowbit.quantizers._check import bit_width
from lowbit.quantizers._initialise import DataInitialised
from lowbit.quantizers._scale import channel_axes

# What a first batch of zeros gives; far below any step in use, and its reciprocal is finite.
SMALLEST_STEP = 1e-8


def scaled_step(parameter: Tensor, x: Tensor, high: int) -> Tensor:
    """The parameter in x's dtype, with its gradient times 1 / sqrt(N high).

    N is the number of elements of x that share one value of it. Source: LSQ, section 2.2.
    """
    shared = max(x.numel() // parameter.numel(), 1)
    held = parameter.detach()
    return (held + (parameter - held) / math.sqrt(shared * high)).to(x.dtype)


def per_value(x: Tensor, parameter: Tensor, axis: int) -> tuple[int, ...]:
    """The axes of x whose elements share one value of the parameter: a channel's, or all."""
    return channel_axes(x, axis if parameter.numel() > 1 else None)


class LearnedStep(DataInitialised):
    """Base: integer codes low ... high of 2 to 8 bits, and a learned ``step``, or one a channel."""

    def __init__(self, bits: int = 4, signed: bool = True, per_channel: bool = False) -> None:
        super().__init__()
        bit_width(self.name, bits, 2, 8)
        self.bits = bits
        self.signed = signed
        self.per_channel = per_channel
        self.low = -(2 ** (bits - 1)) if signed else 0
        self.high = 2 ** (bits - 1) - 1 if signed else 2**bits - 1
        self.step = nn.Parameter(torch.ones(1))

    def bind(self, channels: int, axis: int) -> None:
        super().bind(channels, axis)
        if self.per_channel:
            self.step = nn.Parameter(self.step.new_ones(channels))
