"""Dynamic linear layers."""

from __future__ import annotations

from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear

from lowbit.kernels import int8_dynamic
from lowbit.nn.quantized.dynamic._base import OneMatrix
from lowbit.nn.quantized.dynamic._observe import (
    observed_dtype,
    observed_weight,
    weight_observer,
)
from lowbit.nn.quantized.dynamic._params import QuantizedParams
from lowbit.qtensor import QTensor


class Linear(OneMatrix):
    """x times an int8 weight, plus bias: (..., in_features) float -> (..., out_features) float.

    x is quantized with one scale and zero point for the whole of it in each call; the products
    are summed in integers: ``lowbit.functional.int8.dynamic.linear``. With ``dtype`` float16 the
    weight is float16 and nothing is quantized.

    Arguments: those of ``torch.ao.nn.quantized.dynamic.Linear``, and ``reduce_range`` (7 bits of
    x, as there; False for 8). Weights start at random.

    >>> m = Linear(20, 30)
    >>> m(torch.randn(128, 20)).shape
    torch.Size([128, 30])
    """

    relu = False
    _reduces_from = 4

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias_: bool = True,
        dtype: torch.dtype | str = torch.int8,
        *,
        reduce_range: bool = True,
    ) -> None:
        super().__init__(reduce_range)
        self.in_features = in_features
        self.out_features = out_features
        bias = out_features if bias_ else None
        self.params = QuantizedParams((out_features, in_features), bias, dtype)

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[-1:] != (self.in_features,):
            raise ValueError(
                f"an input of shape {tuple(x.shape)}; its last axis must have "
                f"in_features={self.in_features}"
            )
        return int8_dynamic.linear(x, self.params.matrix(), self.reduce_range, self.relu)

    def extra_repr(self) -> str:
        weight = self.weight()
        scheme = f", qscheme={weight.qscheme()}" if isinstance(weight, QTensor) else ""
        return (
            f"in_features={self.in_features}, out_features={self.out_features}, "
            f"dtype={self.params.dtype}{scheme}"
        )

    def _legacy_keys(self) -> dict[str, str]:
        return {"params": "_packed_params._packed_params"}

    @classmethod
    def from_float(cls, mod: nn.Module, use_precomputed_fake_quant: bool = False) -> Self:
        """The dynamic layer of ``nn.Linear`` with a ``qconfig``, or of a ``qat.Linear``.

        A qconfig of None takes 8 bits and one scale. TypeError for other modules, ValueError
        without a qconfig or for weights of other dtypes than int8 and float16.
        """
        observer = weight_observer(cls.__name__, mod, (nn.Linear, NonDynamicallyQuantizableLinear))
        layer: Any = mod
        return cls._with(layer, observed_weight(layer.weight, observer), observed_dtype(observer))

    @classmethod
    def from_reference(cls, ref_qlinear: Any) -> Self:
        """The dynamic layer of a reference module: its ``get_quantized_weight()`` and ``bias``."""
        weight = ref_qlinear.get_quantized_weight()
        return cls._with(ref_qlinear, weight, ref_qlinear.weight_dtype)

    @classmethod
    def _with(cls, mod: Any, weight: Any, dtype: torch.dtype) -> Self:
        made = cls(mod.in_features, mod.out_features, mod.bias is not None, dtype)
        made.set_weight_bias(weight, mod.bias)
        return made


class LinearReLU(Linear):
    """``Linear`` with ``max(0, ·)`` of its output."""

    relu = True

    @classmethod
    def from_float(cls, mod: nn.Module, use_precomputed_fake_quant: bool = False) -> Self:
        """The dynamic layer of a sequence of ``nn.Linear`` and ``nn.ReLU``; else as ``Linear``'s.

        The qconfig may be the sequence's or the linear layer's.
        """
        pair = isinstance(mod, nn.Sequential) and len(mod) == 2 and isinstance(mod[1], nn.ReLU)
        if not pair or not isinstance(mod, nn.Sequential):
            raise TypeError(
                f"{cls.__name__}.from_float takes a sequence of Linear and ReLU, not "
                f"{type(mod).__name__}"
            )
        inner: Any = mod[0]
        if not hasattr(inner, "qconfig") and hasattr(mod, "qconfig"):
            inner.qconfig = mod.qconfig
            try:
                return super().from_float(inner)
            finally:
                del inner.qconfig
        return super().from_float(inner)
