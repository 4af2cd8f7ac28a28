from torch import Tensor

from lowbit.functional.clip import clip_gradient
from lowbit.quantizers._base import inside
from lowbit.quantizers._registry import register
from lowbit.quantizers._scaled_sign import ScaledSign


@register("bireal_weight")
class BirealWeight(ScaledSign):
    """Sign of weights times the mean magnitude of each output channel; the gradient is not scaled.

    value  a_i sign(w), with a_i the mean of |w| over output channel i
    slope  1 if |w| <= clip else 0

    Arguments: ``clip``, where the slope ends; ``sign_zero``: the sign of 0, "plus" (default: +1) or
    "ternary" (0). (``magnitude_aware_sign`` has the same value and a_i in its slope.)

    Source: ``HardBinaryConv`` in the repositories of Bi-Real Net (Liu et al. 2018) and ReActNet.
    """

    made_for = "weight"

    def slope(self, x: Tensor) -> Tensor:
        return inside(x, self.clip)

    def pull(self, gradient: Tensor, x: Tensor) -> Tensor:
        return clip_gradient(gradient, x, self.clip)
