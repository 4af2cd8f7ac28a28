"""Modules after a packed layer, written as the steps that its operator ends with."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from lowbit.kernels import AFFINE, HARDTANH, PRELU, RELU, RESIDUAL, SHIFT
from lowbit.nn import LearnedScale, RPReLU

MOST_STEPS = 16  # kMaxSteps of lowbit/kernels/csrc/core.h


class Step(NamedTuple):
    """One step of the operator and its rows, float64 of shape (channels,)."""

    code: int
    rows: tuple[Tensor, ...] = ()


RELU_STEP, RESIDUAL_STEP, HARDTANH_STEP = Step(RELU), Step(RESIDUAL), Step(HARDTANH)


def affine_of_norm(norm: _BatchNorm) -> tuple[Tensor, Tensor] | None:
    """Scale and shift of an evaluated batch norm, as torch computes them in float32.

    torch.nn.functional.batch_norm of x is fma(x, scale, shift), with
    scale = rsqrt(var + eps) weight and shift = fma(-mean, scale, bias), so these give its bits.
    None where there are no running statistics.
    """
    mean, var = norm.running_mean, norm.running_var
    if norm.training or mean is None or var is None:
        return None
    scale = torch.rsqrt(var + norm.eps)
    if norm.weight is not None:
        scale = scale * norm.weight.detach()
    bias = torch.zeros_like(mean) if norm.bias is None else norm.bias.detach()
    shift = (bias.double() - mean.double() * scale.double()).float()
    return scale.double(), shift.double()


def _norm(module: Any, channels: int) -> list[Step] | None:
    rows = affine_of_norm(module) if module.num_features == channels else None
    return None if rows is None else [Step(AFFINE, rows)]


def _per_channel(values: Tensor, channels: int) -> Tensor | None:
    """One value or one for each channel, as a row."""
    if values.numel() not in (1, channels):
        return None
    return values.detach().double().reshape(-1).expand(channels).clone()


def _prelu(module: Any, channels: int) -> list[Step] | None:
    slope = _per_channel(module.weight, channels)
    return None if slope is None else [Step(PRELU, (slope,))]


def _leaky_relu(module: Any, channels: int) -> list[Step]:
    slope = torch.full((channels,), module.negative_slope, dtype=torch.float32)
    return [Step(PRELU, (slope.double(),))]


def _hardtanh(module: Any, channels: int) -> list[Step] | None:
    return [HARDTANH_STEP] if (module.min_val, module.max_val) == (-1.0, 1.0) else None


def _rprelu(module: Any, channels: int) -> list[Step] | None:
    rows = [_per_channel(p, channels) for p in (module.gamma, module.beta, module.zeta)]
    if any(row is None for row in rows):
        return None
    return [Step(code, (row,)) for code, row in zip((SHIFT, PRELU, SHIFT), rows, strict=True)]  # type: ignore[arg-type]


def _learned_scale(module: Any, channels: int) -> list[Step] | None:
    if len(module.scales) != 1:
        return None
    scale = _per_channel(module.scales[0], channels)
    return None if scale is None else [Step(AFFINE, (scale, torch.zeros_like(scale)))]


# By exact class: a subclass may compute something else.
_MODULES: dict[type, Callable[[Any, int], list[Step] | None]] = {
    nn.BatchNorm1d: _norm,
    nn.BatchNorm2d: _norm,
    nn.BatchNorm3d: _norm,
    nn.SyncBatchNorm: _norm,
    nn.ReLU: lambda module, channels: [RELU_STEP],
    nn.LeakyReLU: _leaky_relu,
    nn.PReLU: _prelu,
    nn.Hardtanh: _hardtanh,
    RPReLU: _rprelu,
    LearnedScale: _learned_scale,
}


def steps_of(module: nn.Module, channels: int) -> list[Step] | None:
    """The steps that compute the module on (n, channels, ...), or None where none do."""
    make = _MODULES.get(type(module))
    return None if make is None else make(module, channels)


def merged(steps: Iterable[Step]) -> list[Step]:
    """The same function in fewer steps: scales in a row are one, composed in float64.

    A scale by 1 and a shift by 0 vanish, so that what follows an unscaled layer keeps the bits
    of torch's own arithmetic.
    """
    out: list[Step] = []
    for step in steps:
        if step.code == SHIFT and not bool(step.rows[0].any()):
            continue
        if step.code == AFFINE:
            scale, shift = step.rows
            if out and out[-1].code == AFFINE:
                inner, offset = out.pop().rows
                scale, shift = scale * inner, scale * offset + shift
            if not (bool((scale == 1).all()) and not bool(shift.any())):
                out.append(Step(AFFINE, (scale, shift)))
            continue
        out.append(step)
    return out


def rows_of(steps: Iterable[Step]) -> Tensor | None:
    """The rows of all steps in order, float32 (rows, channels); None where there are none."""
    rows = [row for step in steps for row in step.rows]
    return torch.stack(rows).float() if rows else None
