"""Operations of ``QFunctional`` as modules that are called: what conversion makes of + and cat."""

from __future__ import annotations

from typing import Any

from lowbit.nn.quantized.float_functional import QFunctional
from lowbit.qtensor import QTensor


class _Operation(QFunctional):
    """A ``QFunctional`` whose scale and zero point are given."""

    def __init__(self, scale: float = 1.0, zero_point: int = 0) -> None:
        super().__init__()
        self.scale, self.zero_point = scale, zero_point

    def _get_name(self) -> str:
        return f"Quantized{type(self).__name__}"


class Add(_Operation):
    """x + y, quantized with ``scale`` and ``zero_point``."""

    def forward(self, x: QTensor, y: QTensor) -> QTensor:  # type: ignore[override]
        """QTensors whose shapes broadcast -> QTensor."""
        return self.add(x, y)


class AddReLU(_Operation):
    """max(x + y, 0), quantized with ``scale`` and ``zero_point``."""

    def forward(self, x: QTensor, y: QTensor) -> QTensor:  # type: ignore[override]
        """QTensors whose shapes broadcast -> QTensor."""
        return self.add_relu(x, y)


class Mul(_Operation):
    """x * y, quantized with ``scale`` and ``zero_point``."""

    def forward(self, x: QTensor, y: QTensor) -> QTensor:  # type: ignore[override]
        """QTensors whose shapes broadcast -> QTensor."""
        return self.mul(x, y)


class Cat(_Operation):
    """Tensors one after the other along ``dim``, each brought to ``scale`` and ``zero_point``."""

    def __init__(self, scale: float = 1.0, zero_point: int = 0, dim: int = 0) -> None:
        super().__init__(scale, zero_point)
        self.dim = dim

    def forward(self, tensors: Any) -> QTensor:  # type: ignore[override]
        """A sequence of QTensors -> QTensor."""
        return self.cat(tensors, self.dim)
