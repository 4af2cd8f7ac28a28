"""A learned slope on each side of zero."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lowbit.functional.stats import over_channel


class Maxout(nn.Module):
    """A learned slope for the positive part and one for the negative part of each channel.

    y = p relu(x) - n relu(-x)

    (N, C, ...) -> (N, C, ...); ``positive`` p (1 at first) and ``negative`` n (0.25) have
    shape (C,). The derivative at 0 is 0.

    Source: AdaBin, Tu et al. 2022, and its ``binarylib.py``.

    >>> Maxout(2)(torch.tensor([[-1.0, 2.0]]))
    tensor([[-0.2500,  2.0000]], grad_fn=<SubBackward0>)
    """

    def __init__(self, channels: int, positive: float = 1.0, negative: float = 0.25) -> None:
        super().__init__()
        self.positive = nn.Parameter(torch.full((channels,), float(positive)))
        self.negative = nn.Parameter(torch.full((channels,), float(negative)))

    def forward(self, x: Tensor) -> Tensor:
        positive = over_channel(self.positive, x, 1)
        negative = over_channel(self.negative, x, 1)
        return positive * torch.relu(x) - negative * torch.relu(-x)

    def extra_repr(self) -> str:
        return str(self.positive.numel())
