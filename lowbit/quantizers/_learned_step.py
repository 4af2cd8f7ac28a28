"""What the methods with a learned step size share."""

import math

from torch import Tensor

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
