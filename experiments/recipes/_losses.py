"""Losses of class scores against class probabilities: (n, classes) and (n, classes) -> ()."""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor

Loss = Callable[[Tensor, Tensor], Tensor]


def _hinge(scores: Tensor, target: Tensor) -> Tensor:
    """max(0, 1 - t z)^2 for each score z, with t = 2 p - 1 for the target probability p."""
    return (1 - (2 * target - 1) * scores).clamp_min(0).square()


def squared_hinge_mean(scores: Tensor, target: Tensor) -> Tensor:
    """Squared hinge, mean over images and classes (as FINN trains)."""
    return _hinge(scores, target).mean()


def squared_hinge_sum(scores: Tensor, target: Tensor) -> Tensor:
    """Squared hinge, sum over classes and mean over images (as BinaryConnect trains)."""
    return _hinge(scores, target).sum(-1).mean()


LOSSES: dict[str, Loss] = {
    "cross_entropy": F.cross_entropy,
    "squared_hinge_mean": squared_hinge_mean,
    "squared_hinge_sum": squared_hinge_sum,
}


def smooth(target: Tensor, amount: float) -> Tensor:
    """Label smoothing: (1 - amount) p + amount / classes."""
    return target if amount == 0 else target * (1 - amount) + amount / target.shape[-1]
