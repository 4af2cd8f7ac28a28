import torch
from torch import Tensor

from lowbit.quantizers._registry import register
from lowbit.quantizers._sharpening import SharpeningSign


@register("ede")
class Ede(SharpeningSign):
    """Sign, with an error-decay estimator: the slope of a tanh that sharpens as training goes.

    value  +1 if x >= 0 else -1
    slope  k t (1 - tanh(t x)^2), with t = 10^(lg t_min + progress (lg t_max - lg t_min)) and
           k = max(1/t, 1)

    Arguments: ``t_min`` (1e-3 for ResNet-20, 1e-1 for VGG-small), ``t_max``; ``sign_zero``: the
    sign of 0, "plus" (default: +1) or "ternary" (0).

    Source: IR-Net, Qin et al. 2020; ``binaryfunction.py`` and ``trainer.py`` of its repository.
    """

    def __init__(self, t_min: float = 1e-3, t_max: float = 10.0, sign_zero: str = "plus") -> None:
        super().__init__(t_min, t_max, sign_zero)

    def slope(self, x: Tensor) -> Tensor:
        t = self.t.to(x.dtype)
        k = (1 / t).clamp_min(1)
        return k * t * (1 - torch.tanh(t * x).square())
