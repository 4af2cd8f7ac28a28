"""Dropout of a quantized model: nothing."""

from __future__ import annotations

from typing import Any, Self

from torch import nn


class Dropout(nn.Dropout):
    """The input as it is, in training mode as well: it keeps a model's modules and their names."""

    def _get_name(self) -> str:
        return "QuantizedDropout"

    def forward(self, input: Any) -> Any:
        """Return ``input``."""
        return input

    @classmethod
    def from_float(cls, mod: nn.Dropout, use_precomputed_fake_quant: bool = False) -> Self:
        """With the arguments of a ``torch.nn.Dropout``."""
        return cls(mod.p, mod.inplace)

    @classmethod
    def from_reference(cls, mod: nn.Dropout, scale: float, zero_point: int) -> Self:
        """With the arguments of a ``torch.nn.Dropout``."""
        return cls(mod.p, mod.inplace)
