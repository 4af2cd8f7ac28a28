"""PReLU with two learned slopes and two learned shifts."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lowbit.functional.stats import over_channel


class DPReLU(nn.Module):
    """PReLU with a slope of its own on each side, and shifts of input and output.

    y = a z - eta, with z = x - alpha, and a = ``positive`` where z > 0, else ``negative``

    (N, C, ...) -> (N, C, ...); ``positive`` (1 at first), ``negative`` (0.25), ``alpha`` and
    ``eta`` (0) have shape (C,).

    Source: PokeBNN, Zhang et al. 2022; ``pokebnn.py`` of google/aqt.

    >>> DPReLU(2)(torch.tensor([[-1.0, 2.0]]))
    tensor([[-0.2500,  2.0000]], grad_fn=<SubBackward0>)
    """

    def __init__(self, channels: int, positive: float = 1.0, negative: float = 0.25) -> None:
        super().__init__()
        self.positive = nn.Parameter(torch.full((channels,), float(positive)))
        self.negative = nn.Parameter(torch.full((channels,), float(negative)))
        self.alpha = nn.Parameter(torch.zeros(channels))
        self.eta = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        positive, negative, alpha, eta = (
            over_channel(values, x, 1)
            for values in (self.positive, self.negative, self.alpha, self.eta)
        )
        shifted = x - alpha
        return torch.where(shifted > 0, positive, negative) * shifted - eta

    def extra_repr(self) -> str:
        return str(self.alpha.numel())
