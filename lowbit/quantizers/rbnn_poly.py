import math

import torch
from torch import Tensor

from lowbit.quantizers._base import SignQuantizer
from lowbit.quantizers._registry import register


@register("rbnn_poly")
class RbnnPoly(SignQuantizer):
    """Sign, with the slope of a piecewise parabola that sharpens as training goes.

    value  +1 if x >= 0 else -1
    slope  max(0, k (sqrt(2) t - t^2 |x|)), with
           t = 10^(lg t_min + progress (lg t_max - lg t_min)) and k = max(1/t, 1); for
           activations k = 1 and t is at least 1

    The estimator of RBNN only; its rotation of the weights is not part of it.

    Arguments: ``t_min``, ``t_max``; ``activation``: True for an input quantizer, False
    (default) for a weight quantizer.

    Source: RBNN, Lin et al. 2020; ``binarized_modules.py`` of its repository.
    """

    t: Tensor

    def __init__(self, t_min: float = 1e-2, t_max: float = 10.0, activation: bool = False) -> None:
        super().__init__()
        if not 0 < t_min <= t_max:
            raise ValueError(
                f"rbnn_poly needs 0 < t_min <= t_max; got t_min={t_min}, t_max={t_max}"
            )
        self.t_min = t_min
        self.t_max = t_max
        self.activation = activation
        self.register_buffer("t", torch.tensor(float(t_min)))

    def set_progress(self, fraction: float) -> None:
        low, high = math.log10(self.t_min), math.log10(self.t_max)
        self.t.fill_(10 ** (low + fraction * (high - low)))

    def slope(self, x: Tensor) -> Tensor:
        t = self.t.to(x.dtype)
        if self.activation:
            t = t.clamp_min(1)
            k = torch.ones_like(t)
        else:
            k = (1 / t).clamp_min(1)
        return (k * (math.sqrt(2) * t - t.square() * x.abs())).clamp_min(0)
