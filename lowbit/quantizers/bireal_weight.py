from torch import Tensor

from lowbit.functional.clip import clip_gradient
from lowbit.quantizers._base import SignBased, inside
from lowbit.quantizers._check import number
from lowbit.quantizers._registry import register
from lowbit.quantizers._scale import mean_magnitude


@register("bireal_weight")
class BirealWeight(SignBased):
    """Sign of weights times the mean magnitude of each output channel; the gradient is not scaled.

    value  a_i sign(w), with a_i the mean of |w| over output channel i
    slope  1 if |w| <= clip else 0

    Arguments: ``clip``, where the slope ends; ``sign_zero``: the sign of 0, "plus" (default: +1) or
    "ternary" (0). (``magnitude_aware_sign`` has the same value and a_i in its slope.)

    Source: ``HardBinaryConv`` in the repositories of Bi-Real Net (Liu et al. 2018) and ReActNet.
    """

    def __init__(self, clip: float = 1.0, sign_zero: str = "plus") -> None:
        super().__init__(sign_zero)
        number("bireal_weight", "clip", clip, 0)
        self.clip = clip

    def value(self, x: Tensor) -> Tensor:
        return mean_magnitude(x, self.axis) * self.signs(x)

    def sign_scale(self, x: Tensor) -> Tensor | None:
        return mean_magnitude(x, self.axis) if self.sign_zero == "plus" else None

    def slope(self, x: Tensor) -> Tensor:
        return inside(x, self.clip)

    def pull(self, gradient: Tensor, x: Tensor) -> Tensor:
        return clip_gradient(gradient, x, self.clip)
