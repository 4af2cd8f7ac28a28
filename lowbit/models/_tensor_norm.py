"""One batch norm for all values."""

from __future__ import annotations

from torch import Tensor, nn


class TensorNorm(nn.Module):
    """(x - mean) / sqrt(variance + eps) * gamma + beta, with single numbers for the whole tensor.

    Any shape, kept. Mean and variance are those of all values of the batch in training, and
    running ones else: a batch norm of one channel. It leaves the order of the classes as it is.

    Source: ``tensor_norm.py`` of Brevitas, with its eps 1e-4.
    """

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(1, eps=1e-4)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x.reshape(-1, 1)).view_as(x)
