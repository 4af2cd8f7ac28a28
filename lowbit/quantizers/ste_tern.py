from torch import Tensor

from lowbit.quantizers._base import Quantizer, inside
from lowbit.quantizers._check import number
from lowbit.quantizers._registry import register
from lowbit.quantizers._scale import mean_magnitude, wide
from lowbit.quantizers._ternary import ternary


@register("ste_tern")
class SteTern(Quantizer):
    """The step to -1, 0 and 1 at a threshold, with the slope of a clipped identity.

    value  +1 if x > D, -1 if x < -D, else 0, with D = threshold, or 0.7 E|clip(x)| where
           ``ternary_weight_networks``
    slope  1 if |x| <= clip else 0

    Arguments: ``threshold``; ``ternary_weight_networks``: take D from the data as TWN does
    (``twn`` has its scale as well); ``clip``, where the slope ends.

    Source: ``ste_tern`` of larq.
    """

    bits = 2
    levels = (-1.0, 0.0, 1.0)

    def __init__(
        self,
        threshold: float = 0.05,
        ternary_weight_networks: bool = False,
        clip: float = 1.0,
    ) -> None:
        super().__init__()
        number("ste_tern", "threshold", threshold, 0)
        number("ste_tern", "clip", clip, 0)
        self.threshold = threshold
        self.ternary_weight_networks = ternary_weight_networks
        self.clip = clip

    def value(self, x: Tensor) -> Tensor:
        if not self.ternary_weight_networks:
            return ternary(x, self.threshold)
        clipped = wide(x).clamp(-self.clip, self.clip)
        return ternary(clipped, 0.7 * mean_magnitude(clipped, None)).to(x.dtype)

    def slope(self, x: Tensor) -> Tensor:
        return inside(x, self.clip)
