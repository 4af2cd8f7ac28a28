from torch import Tensor

from lowbit.quantizers._base import SignQuantizer
from lowbit.quantizers._registry import register
from lowbit.quantizers._scale import sample_axes, standardise, wide
from lowbit.quantizers._straight_through import straight_through


@register("approx_sign")
class ApproxSign(SignQuantizer):
    """Sign, with the slope of a piecewise parabola as its gradient.

    value  +1 if x >= 0 else -1
    slope  2 - 2|x| if |x| <= 1 else 0

    Arguments: ``unit_deviation``: in training, divide x by sqrt(variance + 1e-5) of its sample
    first, as ReCU does with its inputs (default: False). The value does not change, the slope is
    that of the quotient z divided by the deviation, and the gradient goes through the deviation
    too. ``sign_zero``: the sign of 0, "plus" (default: +1) or "ternary" (0).

    Source: Bi-Real Net, Liu et al. 2018, eq. 7; ``unit_deviation``: ``binarized_modules.py`` of
    ReCU, Xu et al. 2021.
    """

    def __init__(self, unit_deviation: bool = False, sign_zero: str = "plus") -> None:
        super().__init__(sign_zero)
        self.unit_deviation = unit_deviation

    @property
    def is_local(self) -> bool:
        return not self.unit_deviation

    def _inverse_deviation(self, x: Tensor) -> Tensor:
        return standardise(x, sample_axes(x, self.axis), added_variance=1e-5)[1]

    def forward(self, x: Tensor) -> Tensor:
        if not (self.unit_deviation and self.training):
            return super().forward(x)
        y = wide(x)
        z = y * self._inverse_deviation(y)
        return straight_through(self.signs(y), z * _parabola(z).detach()).to(x.dtype)

    def slope(self, x: Tensor) -> Tensor:
        if not (self.unit_deviation and self.training):
            return _parabola(x)
        y = wide(x)
        inverse = self._inverse_deviation(y)
        return (_parabola(y * inverse) * inverse).to(x.dtype)


def _parabola(x: Tensor) -> Tensor:
    """The derivative of the piecewise parabola."""
    return x.abs().mul_(-2).add_(2).clamp_min_(0)
