"""Linear layer with quantizers."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lowbit.nn._fused import Gradients
from lowbit.nn._layer import QuantizedLayer
from lowbit.quantizers import Spec


class QLinear(QuantizedLayer, nn.Linear):
    """``torch.nn.Linear`` on quantized input and weight.

    y = q_in(x) q_w(weight)^T + bias; x (..., in_features) -> y (..., out_features).

    ``input_quantization`` and ``weight_quantization`` name quantizers (``"sign"``, a mapping
    with a name, a ``Quantizer``, ``None`` for full precision); the gradient to x is 0 where
    |x| > ``gradient_cancellation_threshold`` (``None``: nowhere). All gradients are made of
    ``q_g(gradient to y)`` where ``gradient_quantization`` names a quantizer. ``weight`` is latent:
    full precision, quantized in each forward.

    >>> layer = QLinear(4, 2, input_quantization="sign", weight_quantization="sign")
    >>> bool(((layer(torch.randn(3, 4)) - layer.bias).abs() <= 4).all())
    True
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        device: Any = None,
        dtype: Any = None,
        *,
        input_quantization: Spec = None,
        weight_quantization: Spec = None,
        gradient_cancellation_threshold: float | None = None,
        gradient_quantization: Spec = None,
    ) -> None:
        super().__init__(in_features, out_features, bias, device=device, dtype=dtype)
        self._set_quantization(
            input_quantization,
            weight_quantization,
            gradient_cancellation_threshold,
            gradient_quantization,
            input_layout=(in_features, -1),
            weight_layout=(out_features, 0),
            output_layout=(out_features, -1),
        )

    def _op(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return F.linear(x, weight, bias)

    def _input_magnitude(self, x: Tensor) -> Tensor:
        return x.abs().mean(-1, keepdim=True)

    def _plus_bias(self, y: Tensor) -> Tensor:
        return y if self.bias is None else y + self.bias

    def _fused_op_backward(
        self,
        gradient: Tensor,
        x: Tensor,
        weight: Tensor,
        needed: tuple[bool, bool, bool],
        factor: float,
        shift: float,
    ) -> Gradients:
        rows = gradient.reshape(-1, self.out_features)
        return (
            torch.matmul(gradient, weight) if needed[0] else None,
            rows.t() @ x.reshape(-1, self.in_features) if needed[1] else None,
            rows.sum(0) if needed[2] else None,
        )
