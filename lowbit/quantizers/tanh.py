import torch
from torch import Tensor

from lowbit.quantizers._base import Quantizer
from lowbit.quantizers._registry import register


@register("tanh")
class Tanh(Quantizer):
    """A soft sign: no quantizer yet, but what a network learns with before its inputs are signs.

    value  tanh(x)
    slope  1 - tanh(x)^2

    Source: Real-to-Binary, Martinez et al. 2020, section 4.2; ``RealToBinNetFP`` of larq-zoo.
    """

    made_for = "input"
    is_nonlinearity = True

    def value(self, x: Tensor) -> Tensor:
        return torch.tanh(x)

    def slope(self, x: Tensor) -> Tensor:
        return 1 - torch.tanh(x).square()
