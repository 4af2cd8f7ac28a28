"""The step to three values."""

from torch import Tensor


def ternary(x: Tensor, threshold: float | Tensor) -> Tensor:
    """+1 where x > threshold, -1 where x < -threshold, else 0; NaN stays NaN.

    >>> import torch
    >>> ternary(torch.tensor([-0.3, -0.1, 0.0, 0.2]), 0.1)
    tensor([-1.,  0.,  0.,  1.])
    """
    signs = (x > threshold).to(x.dtype) - (x < -threshold).to(x.dtype)
    return signs.add(x.clamp(-1, 1), alpha=0)
