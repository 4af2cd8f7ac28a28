"""Max-pooling of packed signs."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.utils import _pair

from lowbit import kernels


class PackedMaxPool2d(nn.Module):
    """``torch.nn.MaxPool2d`` of signs, on packed bits: (n, words, h, w) int64 -> same.

    Or (words, h, w), of one image without a batch. A maximum of signs is the AND of their bits.
    ``flip`` (words,) int64 is xored to the result: signs that come negated, by a negative scale,
    turn round after the pooling.
    """

    flip: Tensor | None

    def __init__(
        self,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] | None = None,
        padding: int | tuple[int, int] = 0,
        dilation: int | tuple[int, int] = 1,
        ceil_mode: bool = False,
        flip: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.kernel_size = _pair(kernel_size)
        self.stride = self.kernel_size if stride is None else _pair(stride)
        self.padding = _pair(padding)
        self.dilation = _pair(dilation)
        self.ceil_mode = ceil_mode
        if flip is not None and (flip.dtype != torch.int64 or flip.ndim != 1):
            raise ValueError(f"flip is (words,) of int64; got {tuple(flip.shape)} of {flip.dtype}")
        self.register_buffer("flip", flip)

    def forward(self, x: Tensor) -> Any:
        y = kernels.max_pool_bits(
            x.unsqueeze(0) if x.ndim == 3 else x,
            self.kernel_size,
            self.stride,
            self.padding,
            self.dilation,
            self.ceil_mode,
            self.flip,
        )
        return y.squeeze(0) if x.ndim == 3 else y

    def extra_repr(self) -> str:
        return (
            f"{self.kernel_size}, stride={self.stride}, padding={self.padding}, "
            f"dilation={self.dilation}, ceil_mode={self.ceil_mode}"
        ) + ("" if self.flip is None else f", flip=({len(self.flip)},)")
