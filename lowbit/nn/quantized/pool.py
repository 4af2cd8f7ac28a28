"""Pooling layers on quantized tensors; scale and zero point stay as they are."""

from __future__ import annotations

from typing import Any

from torch import nn

from lowbit.nn.quantized import functional as qF


class MaxPool2d(nn.MaxPool2d):
    """``torch.nn.MaxPool2d`` on a QTensor (n, c, h, w) or (c, h, w)."""

    def _get_name(self) -> str:
        return "QuantizedMaxPool2d"

    def forward(self, input: Any) -> Any:
        """QTensor -> QTensor with its scale and zero point; NotImplementedError for indices."""
        return qF.max_pool2d(
            input,
            self.kernel_size,
            self.stride,
            self.padding,
            self.dilation,
            self.ceil_mode,
            self.return_indices,
        )

    @classmethod
    def from_float(cls, mod: nn.MaxPool2d, use_precomputed_fake_quant: bool = False) -> MaxPool2d:
        """With the arguments of a ``torch.nn.MaxPool2d``."""
        sizes = (mod.kernel_size, mod.stride, mod.padding, mod.dilation)
        return cls(*sizes, mod.return_indices, mod.ceil_mode)
