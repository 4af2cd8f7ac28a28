"""Sums, products and concatenations as modules, so that they can be observed and quantized."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NoReturn, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lowbit.functional.int8 import arithmetic
from lowbit.kernels import int8 as kernels
from lowbit.nn.quantized._inputs import quantized
from lowbit.nn.quantized._observed import output_limits, output_qparams
from lowbit.nn.quantized._output import OutputScale
from lowbit.qtensor import QTensor


class FloatFunctional(nn.Module):
    """``add``, ``cat``, ``mul``, … of float tensors, each seen by ``activation_post_process``.

    Preparing a model puts an observer there; converting it makes this a ``QFunctional``. Sums and
    products with a number are not observed: their scale follows from that of the input.

    >>> FloatFunctional().add(torch.tensor(3.0), torch.tensor(4.0))
    tensor(7.)
    """

    activation_post_process: nn.Module

    def __init__(self) -> None:
        super().__init__()
        self.activation_post_process = nn.Identity()

    def forward(self, x: Any) -> NoReturn:
        """RuntimeError: call one of the operations by its name."""
        _no_forward(self)

    def _seen(self, y: Tensor) -> Tensor:
        return self.activation_post_process(y)

    def add(self, x: Tensor, y: Tensor) -> Tensor:
        """x + y."""
        return self._seen(torch.add(x, y))

    def add_scalar(self, x: Tensor, y: float) -> Tensor:
        """x + y, not observed."""
        return torch.add(x, y)

    def mul(self, x: Tensor, y: Tensor) -> Tensor:
        """x * y."""
        return self._seen(torch.mul(x, y))

    def mul_scalar(self, x: Tensor, y: float) -> Tensor:
        """x * y, not observed."""
        return torch.mul(x, y)

    def cat(self, x: Sequence[Tensor], dim: int = 0) -> Tensor:
        """The tensors one after the other along ``dim``."""
        return self._seen(torch.cat(list(x), dim))

    def add_relu(self, x: Tensor, y: Tensor) -> Tensor:
        """max(x + y, 0)."""
        return self._seen(F.relu(torch.add(x, y)))

    def matmul(self, x: Tensor, y: Tensor) -> Tensor:
        """The matrix product x @ y."""
        return self._seen(torch.matmul(x, y))


class FXFloatFunctional(FloatFunctional):
    """``FloatFunctional`` without an observer of its own: a traced graph observes its results."""

    def __init__(self) -> None:
        nn.Module.__init__(self)

    def _seen(self, y: Tensor) -> Tensor:
        return y


class QFunctional(OutputScale):
    """``add``, ``cat``, ``mul``, … of QTensors of one dtype, quantized with ``scale`` and
    ``zero_point``, which are 1.0 and 0 until they are set.

    Shapes broadcast. Raises TypeError for tensors that are not quantized and for two dtypes.

    >>> from lowbit.qtensor import quantize_per_tensor
    >>> a = quantize_per_tensor(torch.tensor(3.0), 1.0, 0, "int32")
    >>> QFunctional().add(a, quantize_per_tensor(torch.tensor(4.0), 1.0, 0, "int32"))
    QTensor(7, dtype=torch.int32, scale=1.0, zero_point=0)
    """

    activation_post_process: nn.Module

    def __init__(self) -> None:
        super().__init__()
        self.scale, self.zero_point = 1.0, 0
        self.activation_post_process = nn.Identity()

    def _get_name(self) -> str:
        return "QFunctional"

    def extra_repr(self) -> str:
        return f"scale={self.scale}, zero_point={self.zero_point}"

    def forward(self, x: Any) -> NoReturn:
        """RuntimeError: call one of the operations by its name."""
        _no_forward(self)

    def _binary(
        self, name: str, operation: Callable[..., Tensor], x: QTensor, y: QTensor, *options: bool
    ) -> QTensor:
        x, y = quantized(x, name), quantized(y, name)
        values = operation(
            *(x.values, x.scale, x.zero_point, y.values, y.scale, y.zero_point),
            *(self._scale, self._zero_point, *options),
        )
        return self._result(values)

    def _result(self, values: Tensor) -> QTensor:
        y = self._limited(QTensor(values, self._scale, self._zero_point))
        return self.activation_post_process(y)

    def add(self, x: QTensor, y: QTensor) -> QTensor:
        """round((x + y) / scale) + zero_point, of the real numbers."""
        return self._binary("QFunctional.add", kernels.add, x, y)

    def add_relu(self, x: QTensor, y: QTensor) -> QTensor:
        """``add``, and nothing below the zero point."""
        return self._binary("QFunctional.add_relu", kernels.add, x, y, True)

    def mul(self, x: QTensor, y: QTensor) -> QTensor:
        """round(x * y / scale) + zero_point, of the real numbers."""
        return self._binary("QFunctional.mul", kernels.mul, x, y)

    def matmul(self, x: QTensor, y: QTensor) -> QTensor:
        """The matrix product x @ y, summed exactly and quantized once."""
        return self._binary("QFunctional.matmul", arithmetic.matmul, x, y)

    def add_scalar(self, x: QTensor, y: float) -> QTensor:
        """x + y: the zero point moves, and the scale where the dtype does not hold it."""
        x = quantized(x, "QFunctional.add_scalar")
        return QTensor(*arithmetic.add_scalar(x.values, x.q_scale(), x.q_zero_point(), y))

    def mul_scalar(self, x: QTensor, y: float) -> QTensor:
        """x * y: the scale changes, and with y < 0 the integers turn round."""
        x = quantized(x, "QFunctional.mul_scalar")
        return QTensor(*arithmetic.mul_scalar(x.values, x.q_scale(), x.q_zero_point(), y))

    def cat(self, x: Sequence[QTensor], dim: int = 0) -> QTensor:
        """The tensors one after the other along ``dim``, each brought to one scale."""
        x = [quantized(part, "QFunctional.cat") for part in x]
        values = kernels.cat(
            [part.values for part in x],
            [part.q_scale() for part in x],
            [part.q_zero_point() for part in x],
            *(self.scale, self.zero_point, dim),
        )
        return self._result(values)

    @classmethod
    def from_float(cls, mod: nn.Module, use_precomputed_fake_quant: bool = False) -> Self:
        """Of an observed ``FloatFunctional``; TypeError for another module."""
        # The name, not the class: that of torch converts as well.
        if type(mod).__name__ != "FloatFunctional":
            raise TypeError(
                f"QFunctional.from_float takes a FloatFunctional, not {type(mod).__name__}"
            )
        functional = cls()
        observer = getattr(mod, "activation_post_process", None)
        if not hasattr(observer, "calculate_qparams"):
            observer = None
        functional.scale, functional.zero_point = output_qparams(observer, "QFunctional")
        functional.limits = output_limits(observer)
        return functional


def _no_forward(module: nn.Module) -> NoReturn:
    raise RuntimeError(
        f"{type(module).__name__} is not called itself: call one of its operations, "
        "as in f.add(x, y)"
    )
