from torch import Tensor

from lowbit.functional.sign import heaviside
from lowbit.quantizers._base import Quantizer, inside
from lowbit.quantizers._check import number
from lowbit.quantizers._registry import register


@register("ste_heaviside", "heaviside")
class SteHeaviside(Quantizer):
    """The step to 0 and 1, with the slope of a clipped identity as its gradient.

    value  1 if x > 0 else 0
    slope  1 if |x| <= clip else 0

    Arguments: ``clip``, where the slope ends.

    Source: ``ste_heaviside`` of larq; the Bi-Attention of BiBERT, Qin et al. 2022.
    """

    bits = 1
    signed = False
    levels = (0.0, 1.0)

    def __init__(self, clip: float = 1.0) -> None:
        super().__init__()
        number("ste_heaviside", "clip", clip, 0)
        self.clip = clip

    def value(self, x: Tensor) -> Tensor:
        return heaviside(x)

    def slope(self, x: Tensor) -> Tensor:
        return inside(x, self.clip)
