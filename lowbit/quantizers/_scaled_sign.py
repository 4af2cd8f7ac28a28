"""What the weight quantizers share whose value is a sign times a mean magnitude."""

from torch import Tensor

from lowbit.quantizers._base import SignBased
from lowbit.quantizers._check import number
from lowbit.quantizers._scale import mean_magnitude


class ScaledSign(SignBased):
    """Base: a_i sign(w), with a_i the mean of |w| over channel i; the slope ends at ``clip``.

    Arguments: ``clip``, where the slope ends; ``sign_zero``: the sign of 0, "plus" (default: +1)
    or "ternary" (0).
    """

    def __init__(self, clip: float = 1.0, sign_zero: str = "plus") -> None:
        super().__init__(sign_zero)
        number(self.name, "clip", clip, 0)
        self.clip = clip

    def value(self, x: Tensor) -> Tensor:
        return mean_magnitude(x, self.axis) * self.signs(x)

    def sign_scale(self, x: Tensor) -> Tensor | None:
        return mean_magnitude(x, self.axis) if self.sign_zero == "plus" else None
