"""Gradients that stop outside a range."""

from __future__ import annotations

import functools
import math
from typing import Any

import torch
from torch import Tensor

# An integer type as wide as each floating one: adding 1 to the bits of a positive float gives
# the next float above it.
_BITS = {
    torch.float64: torch.int64,
    torch.float32: torch.int32,
    torch.float16: torch.int16,
    torch.bfloat16: torch.int16,
}


@functools.cache
def next_above(bound: float, dtype: torch.dtype) -> float:
    """The smallest number of ``dtype`` above ``bound`` (itself rounded to ``dtype``).

    >>> next_above(1.0, torch.float64)
    1.0000000000000002
    """
    rounded = torch.tensor([bound], dtype=dtype, device="cpu")
    return float((rounded.view(_BITS[dtype]) + 1).view(dtype))


def clip_gradient(gradient: Tensor, x: Tensor, bound: float, out: Tensor | None = None) -> Tensor:
    """The gradient where |x| <= bound, 0 elsewhere (a NaN of x lets it pass).

    ``gradient`` and ``x`` have one shape and dtype; ``bound`` >= 0 is rounded to that dtype, as
    a comparison with it would. ``out`` may be ``gradient`` itself.
    """
    if math.isinf(bound):
        return gradient
    if torch.compiler.is_compiling():
        return torch.where(x.abs() > bound, 0, gradient)
    # hardtanh_backward is one pass and keeps the open range, hence the next float.
    limit = next_above(bound, x.dtype)
    if out is None:
        return torch.ops.aten.hardtanh_backward(gradient, x, -limit, limit)
    return torch.ops.aten.hardtanh_backward.grad_input(gradient, x, -limit, limit, grad_input=out)


class _CancelGradient(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, threshold: float) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, float], output: Tensor) -> None:
        x, ctx.threshold = inputs
        ctx.save_for_backward(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (x,) = ctx.saved_tensors
        return clip_gradient(gradient, x, ctx.threshold), None


def cancel_gradient(x: Tensor, threshold: float | None) -> Tensor:
    """x, whose gradient is 0 where |x| > threshold: gradient cancellation. ``None``: just x.

    >>> x = torch.tensor([-2.0, -1.0, 0.5], requires_grad=True)
    >>> cancel_gradient(x, 1.0).sum().backward()
    >>> x.grad
    tensor([0., 1., 1.])
    """
    return x if threshold is None else _CancelGradient.apply(x, threshold)
