import math

import torch
from torch import Tensor

from lowbit.quantizers._base import SignQuantizer
from lowbit.quantizers._registry import register


@register("ede")
class Ede(SignQuantizer):
    """Sign, with an error-decay estimator: the slope of a tanh that sharpens as training goes.

    value  +1 if x >= 0 else -1
    slope  k t (1 - tanh(t x)^2), with t = 10^(lg t_min + progress (lg t_max - lg t_min)) and
           k = max(1/t, 1)

    Arguments: ``t_min`` (1e-3 for ResNet-20, 1e-1 for VGG-small), ``t_max``; ``sign_zero``: the
    sign of 0, "plus" (default: +1) or "ternary" (0).

    Source: IR-Net, Qin et al. 2020; ``binaryfunction.py`` and ``trainer.py`` of its repository.
    """

    t: Tensor

    def __init__(self, t_min: float = 1e-3, t_max: float = 10.0, sign_zero: str = "plus") -> None:
        super().__init__(sign_zero)
        if not 0 < t_min <= t_max:
            raise ValueError(f"ede needs 0 < t_min <= t_max; got t_min={t_min}, t_max={t_max}")
        self.t_min = t_min
        self.t_max = t_max
        self.register_buffer("t", torch.tensor(float(t_min)))

    def set_progress(self, fraction: float) -> None:
        low, high = math.log10(self.t_min), math.log10(self.t_max)
        self.t.fill_(10 ** (low + fraction * (high - low)))

    def slope(self, x: Tensor) -> Tensor:
        t = self.t.to(x.dtype)
        k = (1 / t).clamp_min(1)
        return k * t * (1 - torch.tanh(t * x).square())
