from torch import Tensor

from lowbit.functional.clip import clip_gradient
from lowbit.quantizers._base import inside
from lowbit.quantizers._registry import register
from lowbit.quantizers._scale import mean_magnitude
from lowbit.quantizers._scaled_sign import ScaledSign


@register("magnitude_aware_sign")
class MagnitudeAwareSign(ScaledSign):
    """Sign of weights times the mean magnitude of each output channel; the gradient is scaled.

    value  a_i sign(w), with a_i the mean of |w| over output channel i, held constant
    slope  a_i if |w| <= clip else 0

    Arguments: ``clip``, where the slope ends; ``sign_zero``: the sign of 0, "plus" (default: +1) or
    "ternary" (0). (``bireal_weight`` has the same value and a slope without a_i.)

    Source: Bi-Real Net, Liu et al. 2018, section 3.3; ``MagnitudeAwareSign`` of larq.
    """

    made_for = "weight"

    def slope(self, x: Tensor) -> Tensor:
        return mean_magnitude(x, self.axis) * inside(x, self.clip)

    def pull(self, gradient: Tensor, x: Tensor) -> Tensor:
        return clip_gradient(gradient * mean_magnitude(x, self.axis), x, self.clip)
