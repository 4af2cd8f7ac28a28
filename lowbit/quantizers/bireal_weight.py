from torch import Tensor

from lowbit.functional.sign import sign
from lowbit.quantizers._base import Quantizer, inside
from lowbit.quantizers._check import number
from lowbit.quantizers._registry import register
from lowbit.quantizers._scale import mean_magnitude


@register("bireal_weight")
class BirealWeight(Quantizer):
    """Sign of weights times the mean magnitude of each output channel; the gradient is not scaled.

    value  a_i sign(w), with a_i the mean of |w| over output channel i
    slope  1 if |w| <= clip else 0

    Arguments: ``clip``. (``magnitude_aware_sign`` has the same value and a_i in its slope.)

    Source: ``HardBinaryConv`` in the repositories of Bi-Real Net (Liu et al. 2018) and ReActNet.
    """

    bits = 1

    def __init__(self, clip: float = 1.0) -> None:
        super().__init__()
        number("bireal_weight", "clip", clip, 0)
        self.clip = clip

    def value(self, x: Tensor) -> Tensor:
        return mean_magnitude(x, self.axis) * sign(x)

    def slope(self, x: Tensor) -> Tensor:
        return inside(x, self.clip)
