"""The modules at the two ends of a quantized model: into integers and out of them."""

from __future__ import annotations

from typing import Any, Self

import torch
from torch import Tensor, nn

from lowbit.functional.int8 import plain_dtype
from lowbit.kernels import int8 as kernels
from lowbit.nn.quantized._inputs import described
from lowbit.nn.quantized._observed import output_limits, output_qparams
from lowbit.nn.quantized._output import OutputScale, float32_scale
from lowbit.qtensor import QTensor


class Quantize(OutputScale):
    """A float32 tensor as a QTensor: clamp(round(x / scale) + zero_point), half to even.

    ``dtype``: ``torch.uint8``, ``torch.quint8``, ``"uint8"``, …. The scale is rounded to float32.
    Of four axes the integers come channels last in memory, as convolutions take them fastest.

    A call raises TypeError where x is not float32, ValueError where the scale is not positive or
    the dtype does not hold the zero point.

    >>> Quantize(1.0, 2, "int8")(torch.tensor([[1.0, -1.0], [1.0, -1.0]]))
    QTensor([[3, 1],
             [3, 1]], dtype=torch.int8, scale=1.0, zero_point=2)
    """

    dtype: torch.dtype

    def __init__(
        self,
        scale: float | Tensor,
        zero_point: int | Tensor,
        dtype: torch.dtype | str,
        factory_kwargs: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.scale, self.zero_point = float32_scale(scale), zero_point
        self.dtype = plain_dtype(dtype)

    def _get_name(self) -> str:
        return type(self).__name__

    def forward(self, X: Tensor) -> QTensor:
        """x (float32) -> QTensor of its shape."""
        if X.dtype != torch.float32:
            raise TypeError(
                f"Quantize takes a float32 tensor, not {described(X)}: x.float() first, or "
                "lowbit.quantize_per_tensor, which takes float16 and bfloat16"
            )
        scale, zero_point = self._scale, self._zero_point
        values = kernels.quantize(X, scale, zero_point, self.dtype, channels_last=X.dim() == 4)
        return self._limited(QTensor(values, scale, zero_point))

    @classmethod
    def from_float(cls, mod: nn.Module, use_precomputed_fake_quant: bool = False) -> Self:
        """Of a module whose ``activation_post_process`` has observed what it passes on."""
        observer: Any = getattr(mod, "activation_post_process", None)
        scale, zero_point = output_qparams(observer, cls.__name__)
        module = cls(scale, zero_point, observer.dtype)
        module.limits = output_limits(observer)
        return module

    def extra_repr(self) -> str:
        return f"scale={self.scale}, zero_point={self.zero_point}, dtype={self.dtype}"


class DeQuantize(nn.Module):
    """A QTensor as a float32 tensor: (values - zero_point) * scale. TypeError for others.

    >>> DeQuantize()(Quantize(0.5, 2, "uint8")(torch.tensor([1.0, -0.6])))
    tensor([ 1.0000, -0.5000])
    """

    def forward(self, Xq: QTensor) -> Tensor:
        """QTensor -> float32 of its shape."""
        if not isinstance(Xq, QTensor):
            raise TypeError(f"DeQuantize takes a QTensor, not {described(Xq)}")
        return Xq.dequantize()

    @classmethod
    def from_float(cls, mod: nn.Module, use_precomputed_fake_quant: bool = False) -> Self:
        """Of any module that marks the place."""
        return cls()
