"""Activations of quantized integers.

Some keep scale and zero point and clamp the integers. The others are functions of the real
numbers, whose results are quantized with a scale and a zero point of their own.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from lowbit.functional.int8.dtypes import limits
from lowbit.functional.int8.quantize import check_qparams, dequantize, reciprocal, round_to


def relu(values: Tensor, zero_point: int) -> Tensor:
    """Integers of max(x, 0), with the same scale and zero point."""
    return values.clamp_min(zero_point)


def clamp(
    values: Tensor,
    scale: float,
    zero_point: int,
    low: float | None = None,
    high: float | None = None,
) -> Tensor:
    """Integers of x clamped to the real numbers low and high, each rounded to an integer."""
    least, greatest = limits(values.dtype)
    at_least = least if low is None else integer_of(low, scale, zero_point, values.dtype)
    at_most = greatest if high is None else integer_of(high, scale, zero_point, values.dtype)
    return values.clamp(at_least, at_most)


def relu6(values: Tensor, scale: float, zero_point: int) -> Tensor:
    """Integers of min(max(x, 0), 6), with the same scale and zero point; 6 is rounded to one."""
    return clamp(values, scale, zero_point, 0.0, 6.0)


def integer_of(real: float, scale: float, zero_point: int, dtype: torch.dtype) -> int:
    """The integer that a real number is rounded to."""
    steps = torch.tensor(real, dtype=torch.float32) * reciprocal(scale)
    return int(round_to(steps, zero_point, dtype))


def pointwise(
    function: Callable[[Tensor], Tensor],
    values: Tensor,
    x_scale: float,
    x_zero_point: int,
    scale: float,
    zero_point: int,
) -> Tensor:
    """Integers of function(x): dequantized, in float32, and quantized with its own scale."""
    check_qparams(scale, zero_point, values.dtype)
    y = function(dequantize(values, x_scale, x_zero_point))
    return round_to(y * reciprocal(scale, values.device), zero_point, values.dtype)


def hardswish(
    values: Tensor, x_scale: float, x_zero_point: int, scale: float, zero_point: int
) -> Tensor:
    """x * min(max(x + 3, 0), 6) / 6."""
    return pointwise(F.hardswish, values, x_scale, x_zero_point, scale, zero_point)


def elu(
    values: Tensor,
    x_scale: float,
    x_zero_point: int,
    scale: float,
    zero_point: int,
    alpha: float = 1.0,
) -> Tensor:
    """x where x > 0, alpha * (exp(x) - 1) elsewhere."""
    return pointwise(lambda x: F.elu(x, alpha), values, x_scale, x_zero_point, scale, zero_point)


def celu(
    values: Tensor,
    x_scale: float,
    x_zero_point: int,
    scale: float,
    zero_point: int,
    alpha: float = 1.0,
) -> Tensor:
    """max(x, 0) + min(0, alpha * (exp(x / alpha) - 1))."""
    return pointwise(lambda x: F.celu(x, alpha), values, x_scale, x_zero_point, scale, zero_point)


def leaky_relu(
    values: Tensor,
    x_scale: float,
    x_zero_point: int,
    scale: float,
    zero_point: int,
    negative_slope: float = 0.01,
) -> Tensor:
    """x where x > 0, negative_slope * x elsewhere."""
    return pointwise(
        lambda x: F.leaky_relu(x, negative_slope),
        *(values, x_scale, x_zero_point, scale, zero_point),
    )


def sigmoid(
    values: Tensor, x_scale: float, x_zero_point: int, scale: float, zero_point: int
) -> Tensor:
    """1 / (1 + exp(-x)). ``sigmoid_qparams`` are what torch takes where none are given."""
    return pointwise(torch.sigmoid, values, x_scale, x_zero_point, scale, zero_point)


def hardsigmoid(
    values: Tensor, x_scale: float, x_zero_point: int, scale: float, zero_point: int
) -> Tensor:
    """min(max(x + 3, 0), 6) / 6."""
    return pointwise(F.hardsigmoid, values, x_scale, x_zero_point, scale, zero_point)


def tanh(
    values: Tensor, x_scale: float, x_zero_point: int, scale: float, zero_point: int
) -> Tensor:
    """The hyperbolic tangent. ``tanh_qparams`` are what torch takes where none are given."""
    return pointwise(torch.tanh, values, x_scale, x_zero_point, scale, zero_point)


def threshold(
    values: Tensor, x_scale: float, x_zero_point: int, limit: float, value: float
) -> Tensor:
    """x where x > limit, ``value`` elsewhere, with the scale and zero point of x."""
    return pointwise(
        lambda x: F.threshold(x, limit, value),
        *(values, x_scale, x_zero_point, x_scale, x_zero_point),
    )


def softmax(
    values: Tensor,
    x_scale: float,
    x_zero_point: int,
    scale: float,
    zero_point: int,
    dim: int,
) -> Tensor:
    """exp(x) over its sum along ``dim``."""
    return pointwise(
        lambda x: torch.softmax(x, dim), values, x_scale, x_zero_point, scale, zero_point
    )


def prelu(
    values: Tensor,
    x_scale: float,
    x_zero_point: int,
    weight: Tensor,
    scale: float,
    zero_point: int,
) -> Tensor:
    """x where x > 0, weight * x elsewhere; weight (1,) or (c,), in floating point."""
    return pointwise(
        lambda x: F.prelu(x, weight.float()), values, x_scale, x_zero_point, scale, zero_point
    )


def sigmoid_qparams(dtype: torch.dtype) -> tuple[float, int]:
    """Scale and zero point with which all integers of ``dtype`` span [0, 1)."""
    low, high = limits(dtype)
    return 1 / (high - low + 1), low


def tanh_qparams(dtype: torch.dtype) -> tuple[float, int]:
    """Scale and zero point with which all integers of ``dtype`` span [-1, 1)."""
    low, high = limits(dtype)
    return 2 / (high - low + 1), (low + high + 1) // 2
