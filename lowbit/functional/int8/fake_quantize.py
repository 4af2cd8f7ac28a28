"""Fake quantization: the real numbers that integers would stand for, with a gradient.

The specification: modules run torch's own operators where there are any, with the same values.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lowbit.functional.stats import other_axes, over_channel


def fake_quantize(
    x: Tensor,
    scale: Tensor,
    zero_point: Tensor,
    quant_min: int,
    quant_max: int,
    axis: int | None = None,
) -> Tensor:
    """The number that the integer of x stands for, in x's shape and dtype.

    code   clamp(round(x * (1/scale)) + zero_point, quant_min, quant_max); half to even
    value  (code - zero_point) * scale
    dx     the gradient where the code was within the range before it was clamped, else 0

    In float32, as quantization itself. ``scale`` (float32) and ``zero_point`` have one element,
    or one for each channel along ``axis``; a floating-point zero point is added before rounding
    (embeddings). NaN becomes the lowest code, infinities the ends.

    Source: Jacob et al. 2018, section 3; Krishnamoorthi 2018.

    >>> x = torch.tensor([-9.0, 0.2, 0.3, 9.0])
    >>> fake_quantize(x, torch.tensor(0.5), torch.tensor(0), -2, 1)
    tensor([-1.0000,  0.0000,  0.5000,  0.5000])
    """
    return _OnGrid.apply(x, scale.detach(), zero_point.detach(), quant_min, quant_max, axis, None)


def learnable_fake_quantize(
    x: Tensor,
    scale: Tensor,
    zero_point: Tensor,
    quant_min: int,
    quant_max: int,
    axis: int | None = None,
    grad_factor: float = 1.0,
) -> Tensor:
    """``fake_quantize`` whose scale and zero point learn, too.

    The zero point, a float, is rounded half to even and clamped. With Z the result,

    d scale       sum of gradient * {quant_min - Z below, (value - x) / scale inside,
                  quant_max - Z above}, times ``grad_factor``
    d zero point  sum of gradient * {-scale outside, 0 inside}, times ``grad_factor``

    over all elements, or those of each channel along ``axis``.

    Source: LSQ, Esser et al. 2020; LSQ+, Bhalgat et al. 2020.
    """
    return _OnGrid.apply(x, scale, zero_point, quant_min, quant_max, axis, grad_factor)


def _laid(values: Tensor, x: Tensor, axis: int | None) -> Tensor:
    """One value, or one for each channel of x, so that they broadcast."""
    return values.reshape(()) if axis is None else over_channel(values, x, axis)


class _OnGrid(torch.autograd.Function):
    @staticmethod
    def forward(
        x: Tensor,
        scale: Tensor,
        zero_point: Tensor,
        low: int,
        high: int,
        axis: int | None,
        grad_factor: float | None,
    ) -> Tensor:
        learned = grad_factor is not None
        s, z, codes = _codes(x, scale, zero_point, low, high, axis, learned)
        # Not clamp(low, high), which keeps a NaN.
        codes = torch.where(codes > low, codes, low).clamp_max(high)
        if z.is_floating_point() and not learned:
            # In double, since codes less a zero point that is not whole would be rounded.
            y = ((codes.double() - z) * s.double()).float()
        else:
            y = (codes - z) * s
        # torch 2.11 compiles a Function that ends in a dtype conversion without effect to one
        # without a gradient.
        return y if y.dtype == x.dtype else y.to(x.dtype)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, scale, zero_point, *ctx.rest, ctx.grad_factor = inputs
        ctx.save_for_backward(x, scale, zero_point)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, scale, zero_point = ctx.saved_tensors
        low, high, axis = ctx.rest
        learned = ctx.grad_factor is not None
        s, z, codes = _codes(x, scale, zero_point, low, high, axis, learned)
        below, above = codes < low, codes > high
        inside = (codes >= low) & (codes <= high)
        dx = torch.where(inside, gradient, 0)
        ds = dz = None
        over = tuple(range(x.ndim)) if axis is None else other_axes(x, axis)
        wide = gradient.float()
        if ctx.needs_input_grad[1]:
            slope = (codes - z) - x.float() * (1.0 / s)
            slope = torch.where(below, low - z, torch.where(above, high - z, slope))
            ds = ((wide * slope).sum(over) * ctx.grad_factor).reshape(scale.shape)
        if ctx.needs_input_grad[2]:
            slope = torch.where(below | above, -s, 0)
            dz = ((wide * slope).sum(over) * ctx.grad_factor).reshape(zero_point.shape)
        return dx, ds, dz, None, None, None, None


def _codes(
    x: Tensor,
    scale: Tensor,
    zero_point: Tensor,
    low: int,
    high: int,
    axis: int | None,
    learned: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Scale, zero point and codes before they are clamped, in float32."""
    s, z = _laid(scale.float(), x, axis), _laid(zero_point, x, axis)
    steps = x.float() * (1.0 / s)
    if learned:
        z = torch.round(z).clamp(low, high)
    elif z.is_floating_point():
        return s, z, torch.round(steps + z)
    return s, z, torch.round(steps) + z
