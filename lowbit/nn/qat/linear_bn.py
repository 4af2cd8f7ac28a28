"""Linear layer and batch norm, fused for quantization-aware training."""

from __future__ import annotations

from typing import Any, Self

import torch.nn.functional as F
from torch import Tensor, nn

from lowbit.nn.qat._layer import layers_of, qconfig_of
from lowbit.nn.qat._norm import FoldedNorm
from lowbit.nn.qat.linear import Linear


class LinearBn1d(FoldedNorm, Linear):
    """``Linear`` and ``BatchNorm1d``, with the folded weight rounded (``FoldedNorm``).

    x (batch, in_features) -> y (batch, out_features).
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        freeze_bn: bool = False,
        qconfig: Any = None,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(in_features, out_features, bias, qconfig, device, dtype)
        self._set_norm(nn.BatchNorm1d(out_features, eps, momentum), freeze_bn)

    def forward(self, x: Tensor) -> Tensor:
        return self._normed(x, lambda x, weight: F.linear(x, weight))

    @classmethod
    def from_float(cls, mod: nn.Module, use_precomputed_fake_quant: bool = False) -> Self:
        """Of ``nn.Sequential(Linear, BatchNorm1d)`` with a ``qconfig``; its Parameters are shared.

        Raises TypeError for other modules, ValueError without a qconfig and for a batch norm
        without parameters or statistics.
        """
        linear, bn = layers_of(cls, mod, (nn.Linear, nn.BatchNorm1d))
        layer = cls(
            linear.in_features,
            linear.out_features,
            linear.bias is not None,
            bn.eps,
            bn.momentum,
            False,
            qconfig_of(mod, linear),
            linear.weight.device,
            linear.weight.dtype,
        )
        return layer._take_parameters(linear)._take_norm(bn).train(mod.training)

    def to_float(self) -> nn.Module:
        """``torch.nn.Linear`` with the batch norm folded in."""
        return self._folded_into(self._float())
