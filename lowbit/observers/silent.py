"""Observers that compute nothing: they carry a setting, fixed numbers, or a record."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lowbit.functional.int8.qparams import EPS
from lowbit.observers._base import ObserverBase
from lowbit.observers._kinds import PER_TENSOR, chosen_range, scheme


class FixedQParamsObserver(ObserverBase):
    """A scale and a zero point that are given, for outputs whose range is known: a sigmoid's."""

    scale: Tensor
    zero_point: Tensor

    def __init__(
        self,
        scale: float,
        zero_point: int,
        dtype: Any = torch.uint8,
        qscheme: Any = "per_tensor_affine",
        quant_min: int = 0,
        quant_max: int = 255,
        is_dynamic: bool = False,
    ) -> None:
        if is_dynamic:
            raise ValueError("FixedQParamsObserver cannot be dynamic: its scale is fixed")
        if not (scale > 0 and quant_min <= zero_point <= quant_max):
            raise ValueError(
                f"scale={scale} must be above 0 and zero_point={zero_point} among "
                f"{quant_min} … {quant_max}"
            )
        super().__init__(dtype)
        self.dtype, self.quant_min, self.quant_max = chosen_range(
            dtype, quant_min, quant_max, False
        )
        self.qscheme = scheme(qscheme, PER_TENSOR, type(self).__name__)
        self.register_buffer("scale", torch.tensor([scale], dtype=torch.float32))
        self.register_buffer("zero_point", torch.tensor([zero_point], dtype=torch.int32))

    def calculate_qparams(self) -> tuple[Tensor, Tensor]:
        return self.scale, self.zero_point


class PlaceholderObserver(ObserverBase):
    """A setting for the module that replaces this one: float16, or a scale chosen as it runs."""

    def __init__(
        self,
        dtype: Any = torch.float32,
        custom_op_name: str = "",
        compute_dtype: Any = None,
        quant_min: int | None = None,
        quant_max: int | None = None,
        qscheme: Any = None,
        eps: float | None = None,
        is_dynamic: bool = False,
    ) -> None:
        super().__init__(dtype, is_dynamic or compute_dtype is not None)
        name = "per_tensor_affine" if qscheme is None else qscheme
        self.qscheme = scheme(name, PER_TENSOR, type(self).__name__)
        self.quant_min = quant_min
        self.quant_max = quant_max
        self.eps = EPS if eps is None else eps
        self.custom_op = custom_op_name

    def extra_repr(self) -> str:
        return f"dtype={self.dtype}, is_dynamic={self.is_dynamic}"


class NoopObserver(ObserverBase):
    """A dtype, and nothing else."""

    def __init__(self, dtype: Any = torch.float16, custom_op_name: str = "") -> None:
        super().__init__(dtype)
        self.custom_op = custom_op_name


class ReuseInputObserver(ObserverBase):
    """A mark: the output has the scale and zero point of the input, as after a reshape."""

    def __init__(self) -> None:
        super().__init__(torch.uint8)


class RecordingObserver(ObserverBase):
    """A list of copies of all inputs, for looking at them: ``get_tensor_value()``."""

    def __init__(self, dtype: Any = torch.uint8) -> None:
        super().__init__(dtype)
        self.tensor_val: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        self.tensor_val.append(x.detach().clone())
        return x

    def get_tensor_value(self) -> list[Tensor]:
        return self.tensor_val
