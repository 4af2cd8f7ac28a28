"""Activations on quantized tensors."""

from __future__ import annotations

from typing import Any, Self, TypeVar

import torch
from torch import Tensor, nn

from lowbit.functional.int8 import activations, plain_dtype
from lowbit.nn.quantized import functional as qF
from lowbit.nn.quantized._inputs import quantized
from lowbit.nn.quantized._observed import output_limits, output_qparams
from lowbit.nn.quantized._output import OutputScale, float32_scale
from lowbit.qtensor import QTensor, quantize_per_tensor


class ReLU6(nn.ReLU):
    """min(max(x, 0), 6) in integers: clamped to the zero point and to what 6 is rounded to.

    Scale and zero point stay. ``inplace`` changes the integers of the input.
    """

    def _get_name(self) -> str:
        return "QuantizedReLU6"

    def forward(self, input: QTensor) -> QTensor:  # type: ignore[override]
        """QTensor (any shape) -> QTensor with its scale and zero point."""
        return qF.relu6(input, self.inplace)

    @classmethod
    def from_float(cls, mod: Any, use_precomputed_fake_quant: bool = False) -> Self:
        """With the argument of a ``torch.nn.ReLU6``."""
        return cls(mod.inplace)


class Hardswish(OutputScale, nn.Hardswish):
    """x * min(max(x + 3, 0), 6) / 6, quantized with ``scale`` (float32) and ``zero_point``."""

    def __init__(
        self, scale: float, zero_point: int, device: Any = None, dtype: Any = None
    ) -> None:
        super().__init__()
        self.scale, self.zero_point = float32_scale(scale), zero_point

    def forward(self, input: QTensor) -> QTensor:  # type: ignore[override]
        """QTensor (any shape) -> QTensor."""
        return self._limited(qF.hardswish(input, self.scale, self.zero_point))

    @classmethod
    def from_float(cls, mod: Any, use_precomputed_fake_quant: bool = False) -> Self:
        """Of an observed ``torch.nn.Hardswish``."""
        return _with_limits(cls(*_qparams(cls, mod)), mod)

    @classmethod
    def from_reference(cls, mod: Any, scale: float, zero_point: int) -> Self:
        """Of a ``torch.nn.Hardswish`` and the qparams of its output."""
        return cls(float(scale), int(zero_point))


class ELU(OutputScale, nn.ELU):
    """x where x > 0, alpha * (exp(x) - 1) elsewhere, quantized anew."""

    def __init__(self, scale: float, zero_point: int, alpha: float = 1.0) -> None:
        super().__init__(alpha)
        self.scale, self.zero_point = scale, zero_point

    def forward(self, input: QTensor) -> QTensor:  # type: ignore[override]
        """QTensor (any shape) -> QTensor."""
        return self._limited(qF.elu(input, self.scale, self.zero_point, self.alpha))

    @classmethod
    def from_float(cls, mod: Any, use_precomputed_fake_quant: bool = False) -> Self:
        """Of an observed ``torch.nn.ELU``."""
        return _with_limits(cls(*_qparams(cls, mod), mod.alpha), mod)

    @classmethod
    def from_reference(cls, mod: Any, scale: float, zero_point: int) -> Self:
        """Of a ``torch.nn.ELU`` and the qparams of its output."""
        return cls(float(scale), int(zero_point), mod.alpha)


class LeakyReLU(OutputScale, nn.LeakyReLU):
    """x where x > 0, negative_slope * x elsewhere, quantized anew; the scale in float32.

    ``inplace`` is kept and does nothing: the output has another scale than the input.
    """

    def __init__(
        self,
        scale: float,
        zero_point: int,
        negative_slope: float = 1e-2,
        inplace: bool = False,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(negative_slope, inplace)
        self.scale, self.zero_point = float32_scale(scale), zero_point

    def forward(self, input: QTensor) -> QTensor:  # type: ignore[override]
        """QTensor (any shape) -> QTensor."""
        slope = self.negative_slope
        y = qF.leaky_relu(input, slope, scale=self.scale, zero_point=self.zero_point)
        return self._limited(y)

    @classmethod
    def from_float(cls, mod: Any, use_precomputed_fake_quant: bool = False) -> Self:
        """Of an observed ``torch.nn.LeakyReLU``."""
        return _with_limits(cls(*_qparams(cls, mod), mod.negative_slope, mod.inplace), mod)

    @classmethod
    def from_reference(cls, mod: Any, scale: float, zero_point: int) -> Self:
        """Of a ``torch.nn.LeakyReLU`` and the qparams of its output."""
        return cls(float(scale), int(zero_point), mod.negative_slope, mod.inplace)


class Sigmoid(OutputScale, nn.Sigmoid):
    """1 / (1 + exp(-x)), quantized with ``output_scale`` and ``output_zero_point``."""

    def __init__(self, output_scale: float, output_zero_point: int) -> None:
        super().__init__()
        self.scale, self.zero_point = output_scale, output_zero_point

    @property
    def output_scale(self) -> float:
        """The scale of the output, by torch's name for it here."""
        return self.scale

    @property
    def output_zero_point(self) -> int:
        """The zero point of the output, by torch's name for it here."""
        return self.zero_point

    def forward(self, input: QTensor) -> QTensor:  # type: ignore[override]
        """QTensor (any shape) -> QTensor."""
        return self._limited(qF.sigmoid(input, self.scale, self.zero_point))

    @classmethod
    def from_float(cls, mod: Any, use_precomputed_fake_quant: bool = False) -> Self:
        """Of an observed ``torch.nn.Sigmoid``."""
        return _with_limits(cls(*_qparams(cls, mod)), mod)

    @classmethod
    def from_reference(cls, mod: Any, scale: float, zero_point: int) -> Self:
        """Of a ``torch.nn.Sigmoid`` and the qparams of its output."""
        return cls(float(scale), int(zero_point))


class Softmax(OutputScale, nn.Softmax):
    """exp(x) over its sum along ``dim``, quantized anew.

    Without ``dim``: axis 0 of up to one axis or three, else axis 1, as ``torch.nn.Softmax`` has it.
    """

    def __init__(self, dim: int | None = None, scale: float = 1.0, zero_point: int = 0) -> None:
        super().__init__(dim)
        self.scale, self.zero_point = scale, zero_point

    def forward(self, input: QTensor) -> QTensor:  # type: ignore[override]
        """QTensor (any shape) -> QTensor."""
        dim = self.dim
        if dim is None:
            dim = 0 if input.dim() in (0, 1, 3) else 1
        return self._limited(qF.softmax(input, dim, self.scale, self.zero_point))

    @classmethod
    def from_float(cls, mod: Any, use_precomputed_fake_quant: bool = False) -> Self:
        """Of an observed ``torch.nn.Softmax``."""
        return _with_limits(cls(mod.dim, *_qparams(cls, mod)), mod)

    @classmethod
    def from_reference(cls, mod: Any, scale: float, zero_point: int) -> Self:
        """Of a ``torch.nn.Softmax`` and the qparams of its output."""
        return cls(mod.dim, float(scale), int(zero_point))


class PReLU(OutputScale):
    """x where x > 0, weight * x elsewhere, quantized anew.

    ``weight``: a QTensor of uint8 with one scale, (1,) or (channels,) along axis 1 of the input.
    In a ``state_dict`` it is ``slope``, ``slope_scale`` and ``slope_zero_point``; torch's PReLU
    leaves it out.
    """

    slope: Tensor
    slope_scale: Tensor
    slope_zero_point: Tensor

    def __init__(
        self, output_scale: float, output_zero_point: int, num_parameters: int = 1
    ) -> None:
        super().__init__()
        self.num_parameters = num_parameters
        self.scale, self.zero_point = output_scale, output_zero_point
        drawn = torch.randn(num_parameters, dtype=torch.float32)
        self.set_weight(quantize_per_tensor(drawn, 1.0, 0, torch.uint8))

    def set_weight(self, w: QTensor) -> None:
        """Set the slopes: a QTensor of ``num_parameters`` values with one scale."""
        w = quantized(w, "PReLU.set_weight")
        if w.shape != (self.num_parameters,):
            raise ValueError(
                f"PReLU has {self.num_parameters} slopes, not a tensor of shape {tuple(w.shape)}"
            )
        self.register_buffer("slope", w.values.detach())
        scale = torch.tensor(w.q_scale(), dtype=torch.float64, device=w.device)
        self.register_buffer("slope_scale", scale)
        self.register_buffer("slope_zero_point", torch.tensor(w.q_zero_point(), device=w.device))

    @property
    def weight(self) -> QTensor:
        """The slopes."""
        return QTensor(self.slope, self.slope_scale.item(), int(self.slope_zero_point.item()))

    def forward(self, input: QTensor) -> QTensor:
        """QTensor (n, c, ...) -> QTensor."""
        x = quantized(input, "PReLU")
        slopes = (self.slope.float() - self.slope_zero_point) * self.slope_scale.float()
        values = activations.prelu(
            x.values, x.q_scale(), x.q_zero_point(), slopes, self.scale, self.zero_point
        )
        return self._limited(QTensor(values, self.scale, self.zero_point))

    @classmethod
    def from_float(cls, mod: Any, use_precomputed_fake_quant: bool = False) -> Self:
        """Of an observed ``torch.nn.PReLU`` with a qconfig, whose weight is quantized to uint8."""
        return _with_limits(cls.from_reference(mod, *_qparams(cls, mod)), mod)

    @classmethod
    def from_reference(cls, mod: Any, scale: float, zero_point: int) -> Self:
        """Of a ``torch.nn.PReLU`` with a qconfig, and the qparams of its output."""
        qprelu = cls(float(scale), int(zero_point), mod.num_parameters)
        weight = mod.weight.detach().float()
        observer = mod.qconfig.weight()
        observer(weight)
        if plain_dtype(observer.dtype) != torch.uint8:
            raise ValueError(
                f"the weight of PReLU is quantized to uint8, not {observer.dtype}: give its "
                "qconfig a weight observer with dtype uint8 and one scale for the tensor"
            )
        scales, zero_points = observer.calculate_qparams()
        if scales.numel() != 1:
            raise ValueError("the weight of PReLU has one scale: observe it per tensor")
        quantity = quantize_per_tensor(weight, float(scales), int(zero_points), torch.uint8)
        qprelu.set_weight(quantity)
        return qprelu


Module = TypeVar("Module", bound=OutputScale)


def _with_limits(module: Module, mod: nn.Module) -> Module:
    module.limits = output_limits(mod.activation_post_process)
    return module


def _qparams(cls: type, mod: nn.Module) -> tuple[float, int]:
    return output_qparams(getattr(mod, "activation_post_process", None), cls.__name__)
