from torch import Tensor

from lowbit.functional.clip import clip_gradient
from lowbit.quantizers._base import SignQuantizer, inside
from lowbit.quantizers._check import number
from lowbit.quantizers._registry import register


@register("ste_sign", "ste", "hardtanh_sign")
class SteSign(SignQuantizer):
    """Sign, with the slope of a clipped identity as its gradient.

    value  +1 if x >= 0 else -1
    slope  1 if |x| <= clip else 0

    Arguments: ``clip``, where the slope ends (1; QuickNet 1.25, BMXNet 1.3, PokeBNN 3);
    ``sign_zero``: the sign of 0, "plus" (default: +1) or "ternary" (0).

    Source: BNN, Hubara et al. 2016, section 1.3; ``ste_sign`` of larq.
    """

    def __init__(self, clip: float = 1.0, sign_zero: str = "plus") -> None:
        super().__init__(sign_zero)
        number("ste_sign", "clip", clip, 0)
        self.clip = clip

    def slope(self, x: Tensor) -> Tensor:
        return inside(x, self.clip)

    def pull(self, gradient: Tensor, x: Tensor) -> Tensor:
        return clip_gradient(gradient, x, self.clip)
