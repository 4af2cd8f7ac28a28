"""Marks of where a model turns to integers and back."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn


class QuantStub(nn.Module):
    """Hands its input on; ``lowbit.prepare`` observes it, and conversion quantizes it here.

    A model with stubs is int8 between ``QuantStub`` and ``DeQuantStub`` alone. One without them
    needs none: what can run in int8 does.

    >>> import torch
    >>> QuantStub()(torch.ones(2))
    tensor([1., 1.])
    """

    def __init__(self, qconfig: Any = None) -> None:
        super().__init__()
        if qconfig is not None:
            self.qconfig = qconfig

    def forward(self, x: Tensor) -> Tensor:
        return x


class DeQuantStub(nn.Module):
    """Hands its input on; conversion returns to float here."""

    def __init__(self, qconfig: Any = None) -> None:
        super().__init__()
        if qconfig is not None:
            self.qconfig = qconfig

    def forward(self, x: Tensor) -> Tensor:
        return x
