"""What the quantized functions and modules take."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lowbit.qtensor import QTensor


def quantized(x: Any, name: str) -> QTensor:
    """x, a QTensor with one scale; TypeError for anything else, ValueError for per-channel."""
    if not isinstance(x, QTensor):
        raise TypeError(
            f"{name} takes a QTensor, not {described(x)}; quantize it with "
            "lowbit.nn.quantized.Quantize or lowbit.quantize_per_tensor"
        )
    if x.axis is not None:
        raise ValueError(f"{name} takes one scale for the whole input, not one for each channel")
    return x


def activation(x: Any, name: str) -> tuple[Tensor, float, int]:
    """Integers, scale and zero point of an input in 8 bits; TypeError for int32."""
    x = quantized(x, name)
    if x.values.dtype == torch.int32:
        raise TypeError(f"{name} takes an input of uint8 or int8, not int32")
    return x.values, x.q_scale(), x.q_zero_point()


def described(x: Any) -> str:
    """What x is, for an error."""
    return f"a {x.dtype} tensor" if isinstance(x, Tensor) else f"a {type(x).__name__}"


def check_axes(x: QTensor, axes: int, name: str) -> None:
    """ValueError unless x is (n, c, ...) with ``axes`` axes of places."""
    if x.dim() != axes + 2:
        places = ("l", "h, w", "d, h, w")[axes - 1]
        raise ValueError(f"{name} takes an input (n, c, {places}), not {tuple(x.shape)}")
