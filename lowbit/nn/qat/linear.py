"""Linear layers for quantization-aware training."""

from __future__ import annotations

from typing import Any, Self

import torch.nn.functional as F
from torch import Tensor, nn

from lowbit.nn.qat._layer import QatLayer, detached, layers_of, qconfig_of


class Linear(QatLayer, nn.Linear):
    """``torch.nn.Linear`` whose weight is rounded by ``weight_fake_quant``.

    y = x fake_quant(weight)^T + bias; x (..., in_features) -> y (..., out_features). Raises
    ValueError without a ``qconfig``.

    >>> from lowbit.qconfig import QConfig
    >>> config = QConfig(activation="int_k", weight={"name": "int_k", "bits": 2})
    >>> layer = Linear(8, 3, qconfig=config)
    >>> len(layer.weight_fake_quant(layer.weight).unique()) <= 4
    True
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        qconfig: Any = None,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(in_features, out_features, bias, device=device, dtype=dtype)
        self._set_qconfig(qconfig)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight_fake_quant(self.weight), self.bias)

    @classmethod
    def _like(cls, linear: nn.Linear, qconfig: Any) -> Self:
        layer = cls(
            linear.in_features,
            linear.out_features,
            linear.bias is not None,
            qconfig,
            linear.weight.device,
            linear.weight.dtype,
        )
        return layer._take_parameters(linear)

    @classmethod
    def from_float(cls, mod: nn.Module, use_precomputed_fake_quant: bool = False) -> Self:
        """Of a ``torch.nn.Linear`` with a ``qconfig``; its Parameters are shared.

        Raises TypeError for other modules, ValueError without a qconfig.
        """
        (linear,) = layers_of(cls, mod, (nn.Linear,))
        return cls._like(linear, mod.qconfig)

    def to_float(self) -> nn.Module:
        """A ``torch.nn.Linear`` with copies of weight and bias, in full precision."""
        return self._float()

    def _float(self) -> nn.Linear:
        kind = {"device": self.weight.device, "dtype": self.weight.dtype}
        bias = self.bias is not None
        return detached(nn.Linear(self.in_features, self.out_features, bias, **kind), self)


class LinearReLU(Linear):
    """``Linear``, then ReLU."""

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(super().forward(x))

    @classmethod
    def from_float(cls, mod: nn.Module, use_precomputed_fake_quant: bool = False) -> Self:
        """Of ``nn.Sequential(Linear, ReLU)`` with a ``qconfig``."""
        linear, _ = layers_of(cls, mod, (nn.Linear, nn.ReLU))
        return cls._like(linear, qconfig_of(mod, linear))

    def to_float(self) -> nn.Module:
        """``nn.Sequential(Linear, ReLU)`` with copies of weight and bias."""
        return nn.Sequential(self._float(), nn.ReLU()).train(self.training)
