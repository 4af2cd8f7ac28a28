"""Linear layers on integers."""

from __future__ import annotations

import torch
from torch import Tensor

from lowbit.functional.int8.epilogue import (
    along,
    check_operands,
    check_residual,
    check_scales,
    finish,
    real_sums,
)


def linear(
    x: Tensor,
    x_scale: float,
    x_zero_point: int,
    weight: Tensor,
    w_scales: float | Tensor,
    w_zero_points: int | Tensor | None = None,
    bias: Tensor | None = None,
    out_scale: float = 1.0,
    out_zero_point: int = 0,
    out_dtype: torch.dtype = torch.uint8,
    relu: bool = False,
    residual: Tensor | None = None,
    residual_scale: float = 1.0,
    residual_zero_point: int = 0,
) -> Tensor:
    """x (..., k) uint8 or int8, weight (o, k) int8 -> (..., o): integers, or real in float32.

    Exact sums of (x - x_zero_point) * (weight - w_zero_points), then what ``epilogue`` says.
    ``w_scales`` and ``w_zero_points`` have one value or o; None is a zero point of 0. ``residual``
    has the output's shape; in float32 it is added as it is.

    Raises TypeError for other dtypes, ValueError for shapes, scales and zero points that do not
    fit.

    >>> x, weight = torch.tensor([[1, 2, 3]], dtype=torch.uint8), torch.ones(2, 3).to(torch.int8)
    >>> linear(x, 0.5, 1, weight, 1.0, 0, torch.tensor([0.0, 1.0]), 0.5, 10)
    tensor([[13, 15]], dtype=torch.uint8)
    """
    check_shapes(x, weight, w_scales, w_zero_points, bias, out_dtype, residual)
    check_scales(
        *(x, x_scale, x_zero_point, out_scale, out_zero_point, out_dtype),
        *(residual, residual_scale, residual_zero_point),
    )
    sums = (x.double() - x_zero_point) @ centred_weight(weight, w_zero_points).T
    return finish(
        real_sums(sums, x_scale, w_scales, bias, -1),
        *(out_scale, out_zero_point, out_dtype, relu),
        *(residual, residual_scale, residual_zero_point),
    )


def centred_weight(weight: Tensor, zero_points: int | Tensor | None, axis: int = 0) -> Tensor:
    """weight - zero_points, in float64."""
    if zero_points is None:
        return weight.double()
    if isinstance(zero_points, Tensor):
        zero_points = along(zero_points, weight, axis)
    return weight.double() - zero_points


def output_shape(x: Tensor, weight: Tensor) -> tuple[int, ...]:
    """(..., o) of x (..., k) and weight (o, k)."""
    return (*x.shape[:-1], weight.shape[0])


def check_shapes(
    x: Tensor,
    weight: Tensor,
    w_scales: float | Tensor,
    w_zero_points: int | Tensor | None,
    bias: Tensor | None,
    out_dtype: torch.dtype,
    residual: Tensor | None,
) -> None:
    """TypeError, ValueError for what ``linear`` does not take, values aside."""
    if weight.ndim != 2 or x.ndim < 1 or x.shape[-1] != weight.shape[1]:
        raise ValueError(
            f"linear takes x (..., k) and weight (o, k); got {tuple(x.shape)} and "
            f"{tuple(weight.shape)}"
        )
    check_operands(x, weight, w_scales, w_zero_points, bias, weight.shape[0], out_dtype)
    check_residual(residual, output_shape(x, weight))
