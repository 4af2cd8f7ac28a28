"""Integer thresholds in place of whatever stands between an accumulator and the next sign."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def integer_thresholds(between: Callable[[Tensor], Tensor], bound: int) -> tuple[Tensor, Tensor]:
    """Thresholds t and flips of each channel, with sign(between(v)) = -1 iff (v < t) xor flip.

    ``between`` takes accumulators (values, channels), where channels may be given as 1, and
    returns (values, channels): a scale, a bias, a batch norm, in the float arithmetic of the
    trained network. It is evaluated for every integer from -bound to bound, so what comes out
    is equal to it by trial and not by algebra: rounding, negative, zero and tiny gammas
    included. Returns t (channels) int32 and flip (channels) bool; where the sign is the same
    for all accumulators, t lies at an end of their range.

    Raises ``ValueError`` where a sign turns more than once (``between`` is not monotonic in a
    channel) or is of a NaN.

    >>> scale, shift = torch.tensor([2.0, -1.0, 0.0]), torch.tensor([-3.0, 0.5, -1.0])
    >>> integer_thresholds(lambda v: scale * v + shift, 4)
    (tensor([ 2,  1, -4], dtype=torch.int32), tensor([False,  True,  True]))
    """
    values = torch.arange(-bound, bound + 1)
    y = between(values.to(torch.float32).unsqueeze(1))
    if bool(y.isnan().any()):
        channels = y.isnan().any(0).nonzero().flatten().tolist()
        raise ValueError(f"no thresholds where the network gives NaN: channels {channels}")
    negative = y < 0
    turns = (negative[1:] != negative[:-1]).sum(0)
    if bool((turns > 1).any()):
        channels = (turns > 1).nonzero().flatten().tolist()
        raise ValueError(
            f"the sign turns more than once over the accumulators of channels {channels}, so no "
            "single threshold replaces it; keep these operations as they are"
        )
    # A channel that ends negative has its negatives above the threshold, where they are flipped.
    flip = negative[-1]
    below = negative ^ flip
    return (below.sum(0) - bound).to(torch.int32), flip
