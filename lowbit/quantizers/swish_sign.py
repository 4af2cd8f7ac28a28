import torch
from torch import Tensor

from lowbit.quantizers._base import SignQuantizer
from lowbit.quantizers._check import number
from lowbit.quantizers._registry import register


@register("swish_sign")
class SwishSign(SignQuantizer):
    """Sign, with the derivative of a sign-shaped swish as its gradient.

    value  +1 if x >= 0 else -1
    slope  beta (2 - beta x tanh(beta x / 2)) / (1 + cosh(beta x)); it is below 0 beyond
           |beta x| = 2.4

    Arguments: ``beta``, how steep the swish is; ``sign_zero``: the sign of 0, "plus" (default: +1)
    or "ternary" (0).

    Source: BNN+, Darabi et al. 2018; ``swish_sign`` of larq.
    """

    def __init__(self, beta: float = 5.0, sign_zero: str = "plus") -> None:
        super().__init__(sign_zero)
        number("swish_sign", "beta", beta, 0, open_=True)
        self.beta = beta

    def slope(self, x: Tensor) -> Tensor:
        # 1 / (1 + cosh y) = 2 e / (1 + e)^2 with e = exp(-|y|), which cannot overflow. Beyond
        # |y| = 80 the slope is 0 in single precision.
        y = (self.beta * x).clamp(-80, 80)
        e = torch.exp(-y.abs())
        return (self.beta * (2 - y * torch.tanh(y / 2)) * 2 * e / (1 + e).square()).to(x.dtype)
