import math

import torch
from torch import Tensor

from lowbit.quantizers._base import SignQuantizer
from lowbit.quantizers._check import number
from lowbit.quantizers._registry import register


@register("reste")
class ReSTE(SignQuantizer):
    """Sign, with the slope of a power function that sharpens as training goes.

    value  +1 if x >= 0 else -1
    slope  (1/o) |x|^((1-o)/o) if eps < |x| <= t, eps^(1/o) / eps if |x| <= eps, else 0, with
           o = 1 + (1 - cos(pi progress / 2)) (o_end - 1)

    Arguments: ``t``, where the slope ends; ``eps``, below which it is flat; ``o_end``, the power's
    root at the end of the training (1 at its start: a clipped identity); ``sign_zero``: the sign of
    0, "plus" (default: +1) or "ternary" (0).

    Source: ReSTE, Wu et al. 2023; ``binarized_modules.py`` and ``main.py`` of its repository.
    """

    o: Tensor

    def __init__(
        self, t: float = 1.5, eps: float = 0.1, o_end: float = 3.0, sign_zero: str = "plus"
    ) -> None:
        super().__init__(sign_zero)
        number("reste", "eps", eps, 0, open_=True)
        number("reste", "t", t, eps)
        number("reste", "o_end", o_end, 1)
        self.t = t
        self.eps = eps
        self.o_end = o_end
        self.register_buffer("o", torch.tensor(1.0))

    def set_progress(self, fraction: float) -> None:
        self.o.fill_(1 + (1 - math.cos(math.pi * fraction / 2)) * (self.o_end - 1))

    def slope(self, x: Tensor) -> Tensor:
        magnitude = x.abs()
        o = self.o.to(x.dtype)
        power = (1 - o) / o
        # The clamp keeps the branch that is not taken finite at 0.
        outer = magnitude.clamp_min(self.eps).pow(power) / o
        flat = torch.full_like(x, self.eps).pow(power)
        slope = torch.where(magnitude <= self.eps, flat, outer) * (magnitude <= self.t)
        return slope.to(x.dtype)
