"""A scale of each output channel, computed from the layer's real-valued input."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class ChannelScale(nn.Module):
    """Scale the channels of a binary layer's output by what its input was before quantization.

    y[n, c, ...] = s[n, c] x[n, c, ...], with s = sigmoid(W2 relu(W1 mean(a))), where ``mean``
    is over all axes of a after the first two, W1 is (C_in / reduction, C_in) and W2 is
    (C_out, C_in / reduction); with ``bias``, as in BNext, W1 and W2 have biases.

    Called as ``scale(x, a)``: x (N, C_out, ...) is the output, a (N, C_in, ...) the input that
    the layer quantized; the rest of their shapes may differ, as after a stride.

    Source: Real-to-Binary, Martinez et al. 2020, section 4.3; ``real_to_bin_nets.py`` of larq
    zoo, whose initialisation (He, normal) it has.

    >>> scale = ChannelScale(16, 32)
    >>> scale(torch.randn(2, 32, 4, 4), torch.randn(2, 16, 8, 8)).shape
    torch.Size([2, 32, 4, 4])
    """

    def __init__(
        self, in_channels: int, out_channels: int, reduction: int = 8, bias: bool = False
    ) -> None:
        super().__init__()
        if not 1 <= reduction <= in_channels:
            raise ValueError(
                f"reduction must be 1 to in_channels={in_channels}, so that a channel is left; "
                f"got reduction={reduction}"
            )
        self.reduction = reduction
        self.reduce = nn.Linear(in_channels, in_channels // reduction, bias=bias)
        self.expand = nn.Linear(in_channels // reduction, out_channels, bias=bias)
        for layer in (self.reduce, self.expand):
            nn.init.kaiming_normal_(layer.weight)

    def forward(self, x: Tensor, a: Tensor) -> Tensor:
        mean = a.flatten(2).mean(2) if a.ndim > 2 else a
        scale = torch.sigmoid(self.expand(torch.relu(self.reduce(mean))))
        return x * scale.view(*scale.shape, *[1] * (x.ndim - 2))

    def extra_repr(self) -> str:
        return f"reduction={self.reduction}"
