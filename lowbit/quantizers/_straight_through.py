"""Gradients that the methods prescribe, where torch's own would be others."""

import torch
from torch import Tensor


def straight_through(value: Tensor, surrogate: Tensor) -> Tensor:
    """``value``, whose gradient is its own plus that of ``surrogate``.

    The difference added is exactly 0, so that the value's levels stay exact (``surrogate +
    (value - surrogate).detach()`` rounds).
    """
    return value + (surrogate - surrogate.detach())


def closed_clamp(x: Tensor, low: float | Tensor, high: float | Tensor) -> Tensor:
    """clamp(x, low, high) with gradient 1 on the closed range; the bounds get none.

    torch.clamp divides the gradient between x and a bound that it equals.

    >>> x = torch.tensor([-1.0, 0.0, 1.0, 2.0], requires_grad=True)
    >>> closed_clamp(x, 0, 1).sum().backward()
    >>> x.grad
    tensor([0., 1., 1., 0.])
    """
    inside = (x >= low) & (x <= high)
    return torch.where(inside, x, x.detach().clamp_min(low).clamp_max(high))
