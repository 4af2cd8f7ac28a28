"""A learned scale after a binary layer."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lowbit.functional.stats import over_channel


class LearnedScale(nn.Module):
    """Multiply by a learned scale, which takes the place of a computed mean of |w|.

    ``LearnedScale(C)``         y[n, c, ...] = alpha[c] x[n, c, ...]
    ``LearnedScale(C, H, W)``   y[n, c, h, w] = alpha[c] beta[h] gamma[w] x[n, c, h, w]

    The second form, the product alpha ⊗ beta ⊗ gamma, takes one size for each axis after the
    first, so also ``(C, L)`` and ``(C, D, H, W)``, and inputs of that size only. ``scales``
    holds the vectors, all 1 at first.

    Source: XNOR-Net++, Bulat and Tzimiropoulos 2019; the product is also in larq zoo's
    ``real_to_bin_nets.py``.

    >>> LearnedScale(8)(torch.randn(2, 8, 5, 5)).shape
    torch.Size([2, 8, 5, 5])
    >>> [tuple(scale.shape) for scale in LearnedScale(8, 5, 6).scales]
    [(8,), (5,), (6,)]
    """

    def __init__(self, channels: int, *sizes: int) -> None:
        super().__init__()
        self.scales = nn.ParameterList(torch.ones(size) for size in (channels, *sizes))

    def forward(self, x: Tensor) -> Tensor:
        sizes = tuple(scale.numel() for scale in self.scales)
        if len(sizes) == 1:
            return x * over_channel(self.scales[0], x, 1)
        if tuple(x.shape[1:]) != sizes:
            raise ValueError(
                f"this LearnedScale has one factor for each of the sizes {sizes}; got an input of "
                f"shape {tuple(x.shape)}. LearnedScale({sizes[0]}) takes any size"
            )
        product = x.new_ones(())
        for scale in self.scales:
            product = product.unsqueeze(-1) * scale
        return x * product

    def extra_repr(self) -> str:
        return ", ".join(str(scale.numel()) for scale in self.scales)
