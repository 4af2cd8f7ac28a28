"""Normalisation of quantized integers: the statistics are those of the real numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from lowbit.functional.int8.quantize import centred, check_qparams, reciprocal, round_to


def batch_norm(
    values: Tensor,
    x_scale: float,
    x_zero_point: int,
    mean: Tensor,
    var: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
    scale: float,
    zero_point: int,
) -> Tensor:
    """Integers of (x - mean) / sqrt(var + eps) * weight + bias, the vectors along axis 1.

    round(a (values - x_zero_point) + b) + zero_point in float32, where
    a = weight / sqrt(var + eps) * (x_scale / scale) and
    b = (bias - mean * weight / sqrt(var + eps)) / scale.
    """
    check_qparams(scale, zero_point, values.dtype)
    shape = [1, -1] + [1] * (values.dim() - 2)
    slope = 1 / torch.sqrt(var.float() + eps)
    slope = slope if weight is None else weight.float() * slope
    shift = -mean.float() * slope if bias is None else bias.float() - mean.float() * slope
    a = (slope * (x_scale / scale)).reshape(shape)
    b = (shift / scale).reshape(shape)
    return round_to(a * centred(values, x_zero_point) + b, zero_point, values.dtype)


def layer_norm(
    values: Tensor,
    x_scale: float,
    x_zero_point: int,
    normalized_shape: Sequence[int],
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
    scale: float,
    zero_point: int,
) -> Tensor:
    """``torch.nn.functional.layer_norm`` over the last axes, of shape ``normalized_shape``."""
    if list(values.shape[values.dim() - len(normalized_shape) :]) != list(normalized_shape):
        raise ValueError(
            f"layer_norm over {tuple(normalized_shape)} of a tensor of shape "
            f"{tuple(values.shape)}: those must be its last axes"
        )
    rows = values.reshape(-1, math.prod(normalized_shape))
    normal = _normal(rows, x_scale, x_zero_point, eps).reshape(values.shape)
    return _affine(normal, weight, bias, scale, zero_point, values.dtype)


def group_norm(
    values: Tensor,
    x_scale: float,
    x_zero_point: int,
    num_groups: int,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
    scale: float,
    zero_point: int,
) -> Tensor:
    """``torch.nn.functional.group_norm``: (n, c, ...), the c channels in ``num_groups``."""
    if values.dim() < 2 or values.shape[1] % num_groups:
        raise ValueError(
            f"group_norm of a tensor of shape {tuple(values.shape)} in {num_groups} groups: "
            "they must divide the channels, which are axis 1"
        )
    rows = values.reshape(values.shape[0] * num_groups, -1)
    normal = _normal(rows, x_scale, x_zero_point, eps).reshape(values.shape)
    shape = [-1] + [1] * (values.dim() - 2)
    weight = None if weight is None else weight.reshape(shape)
    bias = None if bias is None else bias.reshape(shape)
    return _affine(normal, weight, bias, scale, zero_point, values.dtype)


def instance_norm(
    values: Tensor,
    x_scale: float,
    x_zero_point: int,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
    scale: float,
    zero_point: int,
) -> Tensor:
    """``torch.nn.functional.instance_norm``: (n, c, ...), each channel by its own statistics."""
    if values.dim() < 3:
        raise ValueError(f"instance_norm needs (n, c, ...), not {tuple(values.shape)}")
    groups = values.shape[1]
    return group_norm(values, x_scale, x_zero_point, groups, weight, bias, eps, scale, zero_point)


def _normal(rows: Tensor, x_scale: float, x_zero_point: int, eps: float) -> Tensor:
    """(rows - their mean) / sqrt(their variance + eps) of the real numbers, in float32."""
    # Statistics in float64: sums of integers are exact.
    real = (rows.double() - x_zero_point) * x_scale
    variance, mean = torch.var_mean(real, -1, correction=0, keepdim=True)
    return ((real - mean) / torch.sqrt(variance + eps)).float()


def _affine(
    normal: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    scale: float,
    zero_point: int,
    dtype: torch.dtype,
) -> Tensor:
    check_qparams(scale, zero_point, dtype)
    y = normal if weight is None else normal * weight.float()
    y = y if bias is None else y + bias.float()
    return round_to(y * reciprocal(scale, y.device), zero_point, dtype)
