"""A learned mix of two tensors, channel by channel."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lowbit.functional.stats import over_channel


class ChannelMix(nn.Module):
    """Mix two tensors by a learned share of each channel.

    s x + (1 - s) y, with s = min(max(share, 0), 1)

    x and y (N, C, ...) -> (N, C, ...); ``share``, 0.5 at first, has shape (C,). In training, a call
    first puts the shares outside [0, 1] back to the nearer end, from which they can return.

    Source: the information recoupling of BNext, Guo et al. 2022; ``bnext.py`` of its repository.

    >>> mix = ChannelMix(16)
    >>> mix(torch.ones(2, 16, 4, 4), torch.zeros(2, 16, 4, 4)).mean()
    tensor(0.5000, grad_fn=<MeanBackward0>)
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.share = nn.Parameter(torch.full((channels,), 0.5))

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        if self.training:
            # By .data: a second call before the backward pass of the first must not upset it. And
            # no clamp of the value: at its ends, torch 2.14 has no gradient that leads back.
            self.share.data.clamp_(0, 1)
        share = self.share if self.training else self.share.clamp(0, 1)
        share = over_channel(share, x, 1)
        return share * x + (1 - share) * y

    def extra_repr(self) -> str:
        return str(self.share.numel())
