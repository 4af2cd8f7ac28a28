"""Linear layers on quantized tensors."""

from __future__ import annotations

from typing import Any, Self

import torch
from torch import nn

from lowbit.functional.int8 import plain_dtype
from lowbit.kernels import int8 as kernels
from lowbit.nn.quantized._inputs import activation
from lowbit.nn.quantized._observed import (
    observed,
    output_dtype,
    output_limits,
    output_qparams,
    quantized_weight,
)
from lowbit.nn.quantized._weighted import WeightedModule
from lowbit.qtensor import QTensor


class Linear(WeightedModule):
    """``torch.nn.Linear`` in int8: QTensor (..., in_features) -> QTensor (..., out_features).

    ``weight()`` int8 (out_features, in_features) with one scale or one for each output, zeros at
    first; ``bias()`` float32 or None. The sums are exact; they are quantized once, with ``scale``
    and ``zero_point``. The input is uint8 or int8. ``dtype``: int8, that of the weight.

    >>> from lowbit.qtensor import quantize_per_tensor
    >>> m = Linear(20, 30)
    >>> m(quantize_per_tensor(torch.randn(128, 20), 1.0, 0, "quint8")).size()
    torch.Size([128, 30])
    """

    _relu = False

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias_: bool = True,
        dtype: torch.dtype | str = torch.int8,
    ) -> None:
        super().__init__()
        if str(dtype).removeprefix("torch.").startswith("float") or (
            plain_dtype(dtype) != torch.int8
        ):
            raise ValueError(
                f"{type(self).__name__} has a weight of int8 (torch.qint8), not {dtype}"
            )
        self.in_features = in_features
        self.out_features = out_features
        self._init_weight((out_features, in_features), out_features, bias_, None)

    def forward(self, x: QTensor) -> Any:
        """QTensor (..., in_features) -> QTensor (..., out_features)."""
        scale, zero_point = self._scale, self._zero_point
        values, x_scale, x_zero_point = activation(x, "Linear")
        values = kernels.linear(
            values,
            x_scale,
            x_zero_point,
            self._weight,
            self._kernel_scale,
            self._kernel_zero_point,
            self._bias,
            scale,
            zero_point,
            self.out_dtype,
            self._relu,
        )
        if self.out_dtype == torch.float32:
            return values
        return self._limited(QTensor(values, scale, zero_point))

    def extra_repr(self) -> str:
        return (
            f"in_features={self.in_features}, out_features={self.out_features}, "
            f"scale={self.scale}, zero_point={self.zero_point}, "
            f"qscheme={self.weight().qscheme()}"
        )

    @classmethod
    def from_float(cls, mod: nn.Module, use_precomputed_fake_quant: bool = False) -> Self:
        """Of an observed ``torch.nn.Linear``, or one trained with fake quantization.

        The weight's observer is made by ``mod.qconfig.weight`` and shown the weight, or is
        ``mod.weight_fake_quant``, with the scale that it has from training; it is shown the weight
        if it has none, unless ``use_precomputed_fake_quant``. The output's is
        ``mod.activation_post_process``, whose ``limits`` the output keeps if it fake-quantizes.

        Raises TypeError for another module, ValueError without a qconfig or an observed output,
        and for a weight observer whose dtype is not int8.
        """
        types = (nn.Linear, nn.modules.linear.NonDynamicallyQuantizableLinear)
        parts = observed(mod, types, cls.__name__, relu=cls._relu)
        weight = quantized_weight(
            parts.weight, parts.weight_observer, observe=not use_precomputed_fake_quant
        )
        qlinear = cls(parts.layer.in_features, parts.layer.out_features)
        qlinear.set_weight_bias(weight, None if parts.bias is None else parts.bias.clone())
        qlinear.out_dtype = output_dtype(parts.output) or torch.uint8
        qlinear.scale, qlinear.zero_point = output_qparams(parts.output, cls.__name__)
        qlinear.limits = output_limits(parts.output)
        return qlinear

    @classmethod
    def from_reference(cls, ref_qlinear: Any, output_scale: float, output_zero_point: int) -> Self:
        """Of a reference layer: a float one whose ``get_quantized_weight()`` has the weight."""
        qlinear = cls(ref_qlinear.in_features, ref_qlinear.out_features)
        qlinear.set_weight_bias(ref_qlinear.get_quantized_weight(), ref_qlinear.bias)
        qlinear.scale, qlinear.zero_point = output_scale, output_zero_point
        return qlinear


class LinearReLU(Linear):
    """``Linear`` and a ReLU in one: no integer of the output is below its zero point.

    ``from_float`` takes the sequence of a Linear and a ReLU.
    """

    _relu = True
