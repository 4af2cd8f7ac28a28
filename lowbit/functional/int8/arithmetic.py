"""Sums, products and concatenations of quantized integers.

Two tensors have one dtype, each its own scale and zero point, and shapes that broadcast.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lowbit.functional.int8.dtypes import limits
from lowbit.functional.int8.quantize import (
    centred,
    check_qparams,
    dequantize,
    reciprocal,
    round_to,
)


def add(
    a: Tensor,
    a_scale: float,
    a_zero_point: int,
    b: Tensor,
    b_scale: float,
    b_zero_point: int,
    scale: float,
    zero_point: int,
) -> Tensor:
    """Integers of the sum of two real tensors: round((a + b) * (1/scale)) + zero_point."""
    _check_pair("add", a, b, scale, zero_point)
    total = dequantize(a, a_scale, a_zero_point) + dequantize(b, b_scale, b_zero_point)
    return round_to(total * reciprocal(scale, a.device), zero_point, a.dtype)


def add_relu(
    a: Tensor,
    a_scale: float,
    a_zero_point: int,
    b: Tensor,
    b_scale: float,
    b_zero_point: int,
    scale: float,
    zero_point: int,
) -> Tensor:
    """``add``, and nothing below the zero point."""
    total = add(a, a_scale, a_zero_point, b, b_scale, b_zero_point, scale, zero_point)
    return total.clamp_min(zero_point)


def mul(
    a: Tensor,
    a_scale: float,
    a_zero_point: int,
    b: Tensor,
    b_scale: float,
    b_zero_point: int,
    scale: float,
    zero_point: int,
) -> Tensor:
    """Integers of the product: round((a - za)(b - zb) * (sa sb / scale)) + zero_point."""
    _check_pair("mul", a, b, scale, zero_point)
    product = _product(a, a_zero_point, b, b_zero_point)
    return round_to(product * _factor(a, a_scale, b_scale, scale), zero_point, a.dtype)


def mul_relu(
    a: Tensor,
    a_scale: float,
    a_zero_point: int,
    b: Tensor,
    b_scale: float,
    b_zero_point: int,
    scale: float,
    zero_point: int,
) -> Tensor:
    """``mul``, and nothing below the zero point."""
    product = mul(a, a_scale, a_zero_point, b, b_scale, b_zero_point, scale, zero_point)
    return product.clamp_min(zero_point)


def _product(a: Tensor, a_zero_point: int, b: Tensor, b_zero_point: int) -> Tensor:
    if a.dtype == torch.int32:
        return ((a.long() - a_zero_point) * (b.long() - b_zero_point)).float()
    return centred(a, a_zero_point) * centred(b, b_zero_point)


def _factor(a: Tensor, a_scale: float, b_scale: float, scale: float) -> Tensor:
    """(a_scale * b_scale) * (1/scale), each step in float32."""
    scales = torch.tensor([a_scale, b_scale], dtype=torch.float32, device=a.device)
    return scales[0] * scales[1] * reciprocal(scale, a.device)


def matmul(
    a: Tensor,
    a_scale: float,
    a_zero_point: int,
    b: Tensor,
    b_scale: float,
    b_zero_point: int,
    scale: float,
    zero_point: int,
) -> Tensor:
    """Integers of a @ b, with the dot products exact: (..., m, k) and (..., k, n)."""
    _check_pair("matmul", a, b, scale, zero_point)
    # float64 holds every sum of products of 8-bit integers, and has a fast product on any device.
    sums = (a.double() - a_zero_point) @ (b.double() - b_zero_point)
    return round_to(sums.float() * _factor(a, a_scale, b_scale, scale), zero_point, a.dtype)


def cat(
    tensors: Sequence[Tensor],
    scales: Sequence[float],
    zero_points: Sequence[int],
    scale: float,
    zero_point: int,
    dim: int = 0,
) -> Tensor:
    """Integers of the tensors one after the other along ``dim``, each brought to one scale."""
    if not tensors:
        raise ValueError("cat of no tensors: at least one is needed")
    for tensor in tensors:
        _check_pair("cat", tensors[0], tensor, scale, zero_point)
    inverse = reciprocal(scale, tensors[0].device)
    parts = [
        tensor
        if (s, z) == (scale, zero_point)
        else round_to(dequantize(tensor, s, z) * inverse, zero_point, tensor.dtype)
        for tensor, s, z in zip(tensors, scales, zero_points, strict=True)
    ]
    return torch.cat(parts, dim)


def add_scalar(
    values: Tensor, scale: float, zero_point: int, other: float
) -> tuple[Tensor, float, int]:
    """Integers, scale and zero point of x + other.

    The zero point moves by c = round(other / scale), half to even, and the integers stay. Where
    the dtype does not hold the moved zero point, it stops at the limit, the scale grows so that
    both ends of the range still fit, and the integers are rounded anew.
    """
    low, high = limits(values.dtype)
    moved = zero_point - round(other / scale)
    if low <= moved <= high:
        return values, scale, moved
    if moved < low:
        grown, limit = (high - moved) / (high - low) * scale, low
    else:
        grown, limit = (moved - low) / (high - low) * scale, high
    real = centred(values, moved) * scale
    return round_to(real * reciprocal(grown, values.device), limit, values.dtype), grown, limit


def mul_scalar(
    values: Tensor, scale: float, zero_point: int, other: float
) -> tuple[Tensor, float, int]:
    """Integers, scale and zero point of x * other.

    other > 0: the scale times other. other < 0: the scale times -other, with integers and zero
    point mirrored in their range. other = 0: integers and zero point 0, scale 1.
    """
    low, high = limits(values.dtype)
    if other > 0:
        return values, scale * other, zero_point
    if other < 0:
        # In int64, where the sum of the limits and the mirrored uint8 fit.
        mirrored = (low + high - values.long()).to(values.dtype)
        return mirrored, scale * -other, low + high - zero_point
    if other != other:
        raise ValueError("mul_scalar by NaN has no scale")
    return torch.zeros_like(values), 1.0, 0


def _check_pair(name: str, a: Tensor, b: Tensor, scale: float, zero_point: int) -> None:
    if a.dtype != b.dtype:
        raise TypeError(
            f"{name} of {a.dtype} and {b.dtype}: both must be of one dtype; "
            "quantize one of them to that of the other"
        )
    check_qparams(scale, zero_point, a.dtype)
