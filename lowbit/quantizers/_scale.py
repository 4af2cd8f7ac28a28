"""Statistics that several quantizers scale by."""

import torch
from torch import Tensor

from lowbit.functional.stats import other_axes

# Variances up to here are rounding noise of a constant channel: weights of that spread (1e-6)
# tell nothing, and dividing by it would.
TINY_VARIANCE = 1e-12


def wide(x: Tensor) -> Tensor:
    """x in float32 where it is a half precision, else x: there sums and squares do not overflow."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def channel_axes(x: Tensor, axis: int | None) -> tuple[int, ...]:
    """The axes over which the elements of one channel lie: all but ``axis``.

    All axes where ``axis`` is None, and for vectors, which are one channel.
    """
    if axis is None or x.ndim < 2:
        return tuple(range(x.ndim))
    return other_axes(x, axis)


def sample_axes(x: Tensor, axis: int) -> tuple[int, ...]:
    """The axes over which the elements of one sample lie: all but the first.

    Where a layer has told the ``axis`` of the channels of its input, which is negative, all from
    that axis on: then an unbatched input is one sample, and a token is one.
    """
    return tuple(range(x.ndim + axis if axis < 0 else min(1, x.ndim - 1), x.ndim))


def mean_magnitude(x: Tensor, axis: int | None) -> Tensor:
    """The mean of |x| over each channel along ``axis`` (broadcastable), or over all of x."""
    # The 1-norm reads x once; abs().mean() writes a copy first.
    total = torch.linalg.vector_norm(wide(x), 1, channel_axes(x, axis), keepdim=axis is not None)
    return (total / (x.numel() / max(total.numel(), 1))).to(x.dtype)


def largest_magnitude(x: Tensor) -> Tensor:
    """The largest |x|; 0 for an empty tensor."""
    return x.abs().amax() if x.numel() > 0 else x.new_zeros(())


def standardise(
    x: Tensor, axes: tuple[int, ...], added_variance: float = 0.0
) -> tuple[Tensor, Tensor]:
    """((x - mean) / deviation, 1 / deviation), with the statistics over ``axes``.

    The deviation is sqrt(sum (x - mean)^2 / (n - 1) + added_variance). A constant channel
    becomes 0, with no gradient.
    """
    centred = x - x.mean(axes, keepdim=True)
    total = centred.square().sum(axes, keepdim=True)
    count = x.numel() // max(total.numel(), 1)
    variance = total / max(count - 1, 1) + added_variance
    spread = variance > TINY_VARIANCE
    inverse = torch.where(spread, variance.clamp_min(TINY_VARIANCE).rsqrt(), 0)
    return centred * inverse, inverse
