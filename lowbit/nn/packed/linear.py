"""Packed linear layer."""

from __future__ import annotations

from typing import Any, Self

import torch
from torch import Tensor

from lowbit.nn.linear import QLinear
from lowbit.nn.packed._from_trained import packed_from
from lowbit.nn.packed._layer import PackedLayer


class PackedLinear(PackedLayer):
    """``QLinear`` on bits: x (..., in_features) -> (..., out_features).

    Packed input and output are (n, words). All else is said in ``PackedLayer``.
    """

    @classmethod
    def from_trained(cls, layer: QLinear) -> Self:
        """The packed layer that returns what ``layer`` does in evaluation.

        Raises ``CannotPack`` with the reason where there is none.
        """
        return packed_from(cls, layer, 0)

    @property
    def _words(self) -> int:
        return self.geometry.planes_x * self.geometry.words

    def _magnitude(self, x: Tensor) -> Tensor:
        return x.abs().mean(-1, keepdim=True)

    def forward(self, x: Tensor, residual: Tensor | None = None) -> Any:
        if self.packed_input:
            if x.ndim != 2 or x.shape[1] != self._words:
                raise ValueError(
                    f"{type(self).__name__} takes (n, {self._words}) words of packed input; got "
                    f"{tuple(x.shape)}: an image is flattened with its batch axis, or the model "
                    "converted with an example= without one"
                )
            if residual is not None:
                residual = residual.float()
            return self._in_dtype(self._run(x, residual, False), self.dtype)
        leading, dtype = x.shape[:-1], x.dtype
        rows = x if dtype == torch.float32 else self._reals(x)
        if len(leading) != 1:
            rows = rows.flatten(0, -2) if leading else rows.unsqueeze(0)
        if residual is not None:
            residual = residual.float().reshape(-1, self.out_channels)
        y = self._run(rows, residual, False)
        if self.out == "bits":
            return y
        y, bits = y if self.out == "both" else (y, None)
        if self.act_scale:
            y = self._scaled(y, rows)
        if len(leading) != 1:
            y = y.view(*leading, y.shape[-1])
        if dtype != torch.float32 and self.out != "int":
            y = y.to(dtype)
        return y if bits is None else (y, bits)
