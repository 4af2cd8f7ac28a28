"""PReLU with learned shifts."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lowbit.functional.stats import over_channel


class RPReLU(nn.Module):
    """PReLU whose corner moves: one place, one slope and one height for each channel.

    y = PReLU(x + gamma) + zeta, with PReLU(z) = z where z > 0, else beta z

    (N, C, ...) -> (N, C, ...); ``gamma``, ``zeta`` (0 at first) and ``beta`` (``slope`` at
    first) have shape (C,).

    Source: ReActNet, Liu et al. 2020. The sign of gamma is that of the authors' code.

    >>> RPReLU(4)(torch.tensor([[-1.0, 0.0, 1.0, 2.0]]))
    tensor([[-0.2500,  0.0000,  1.0000,  2.0000]], grad_fn=<AddBackward0>)
    """

    def __init__(self, channels: int, slope: float = 0.25) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.zeros(channels))
        self.beta = nn.Parameter(torch.full((channels,), float(slope)))
        self.zeta = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        shifted = x + over_channel(self.gamma, x, 1)
        return F.prelu(shifted, self.beta) + over_channel(self.zeta, x, 1)

    def extra_repr(self) -> str:
        return str(self.beta.numel())
