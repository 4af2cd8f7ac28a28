from torch import Tensor

from lowbit.functional.clip import clip_gradient
from lowbit.quantizers._base import SignBased, inside
from lowbit.quantizers._check import number
from lowbit.quantizers._registry import register
from lowbit.quantizers._scale import mean_magnitude


@register("magnitude_aware_sign")
class MagnitudeAwareSign(SignBased):
    """Sign of weights times the mean magnitude of each output channel; the gradient is scaled.

    value  a_i sign(w), with a_i the mean of |w| over output channel i, held constant
    slope  a_i if |w| <= clip else 0

    Arguments: ``clip``, where the slope ends; ``sign_zero``: the sign of 0, "plus" (default: +1) or
    "ternary" (0). (``bireal_weight`` has the same value and a slope without a_i.)

    Source: Bi-Real Net, Liu et al. 2018, section 3.3; ``MagnitudeAwareSign`` of larq.
    """

    def __init__(self, clip: float = 1.0, sign_zero: str = "plus") -> None:
        super().__init__(sign_zero)
        number("magnitude_aware_sign", "clip", clip, 0)
        self.clip = clip

    def value(self, x: Tensor) -> Tensor:
        return mean_magnitude(x, self.axis) * self.signs(x)

    def sign_scale(self, x: Tensor) -> Tensor | None:
        return mean_magnitude(x, self.axis) if self.sign_zero == "plus" else None

    def slope(self, x: Tensor) -> Tensor:
        return mean_magnitude(x, self.axis) * inside(x, self.clip)

    def pull(self, gradient: Tensor, x: Tensor) -> Tensor:
        return clip_gradient(gradient * mean_magnitude(x, self.axis), x, self.clip)
