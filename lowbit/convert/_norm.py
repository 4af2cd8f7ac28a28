"""Batch norms that stay: two numbers for each channel in place of four."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from lowbit.convert._steps import affine_of_norm

# Not 0, which torch 2.11 refuses; a power of two, so that variance and eps sum to 1 exactly.
EPS = 2.0**-20


class FrozenNorm(nn.Module):
    """An evaluated batch norm: y = weight x + bias for each channel, rounded once.

    x (n, channels, ...) -> same shape. It is torch's batch norm of mean 0 and variance 1, so it
    gives the very bits of the one that it replaces. Statistics are constants, not stored.
    """

    weight: Tensor
    bias: Tensor
    mean: Tensor
    var: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("weight", torch.ones(channels))
        self.register_buffer("bias", torch.zeros(channels))
        self.register_buffer("mean", torch.zeros(channels), persistent=False)
        self.register_buffer("var", torch.full((channels,), 1 - EPS), persistent=False)

    @classmethod
    def from_trained(cls, norm: _BatchNorm) -> FrozenNorm | None:
        """The same function, or None where the norm has no running statistics."""
        affine = affine_of_norm(norm)
        if affine is None:
            return None
        frozen = cls(norm.num_features).eval()
        frozen.weight, frozen.bias = (row.float() for row in affine)
        return frozen

    def forward(self, x: Tensor) -> Tensor:
        return F.batch_norm(x, self.mean, self.var, self.weight, self.bias, False, 0.0, EPS)

    def extra_repr(self) -> str:
        return str(len(self.weight))


NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
