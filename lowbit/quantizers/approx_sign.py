from torch import Tensor

from lowbit.quantizers._base import SignQuantizer
from lowbit.quantizers._registry import register


@register("approx_sign")
class ApproxSign(SignQuantizer):
    """Sign, with the slope of a piecewise parabola as its gradient.

    value  +1 if x >= 0 else -1
    slope  2 - 2|x| if |x| <= 1 else 0

    Source: Bi-Real Net, Liu et al. 2018, eq. 7.
    """

    def slope(self, x: Tensor) -> Tensor:
        return (2 - 2 * x.abs()).clamp_min(0)
