import torch
from torch import Tensor, nn

from lowbit.quantizers._base import Quantizer
from lowbit.quantizers._check import number
from lowbit.quantizers._registry import register
from lowbit.quantizers._scale import largest_magnitude
from lowbit.quantizers._straight_through import straight_through


@register("ttq")
class Ttq(Quantizer):
    """Ternary weights with two learned magnitudes.

    value  Wp if w > D, -Wn if w < -D, else 0, with D = threshold max|w|, Wp the
           ``positive_scale`` and Wn the ``negative_scale`` of the tensor (1 at first)
    slope  Wp if w > D, Wn if w < -D, else 1

    The gradient of Wp is the sum of the gradients where w > D, that of Wn minus the sum of
    those where w < -D.

    Arguments: ``threshold``, the share of the largest magnitude.

    Source: TTQ, Zhu et al. 2017; ``ternary.py`` of czhu95/ternarynet, ``ternarize`` of
    tensorpack.
    """

    made_for = "weight"
    bits = 2

    def __init__(self, threshold: float = 0.05) -> None:
        super().__init__()
        number("ttq", "threshold", threshold, 0, 1)
        self.threshold = threshold
        self.positive_scale = nn.Parameter(torch.ones(1))
        self.negative_scale = nn.Parameter(torch.ones(1))

    def _scales(self, x: Tensor) -> tuple[Tensor, Tensor]:
        positive, negative = (
            p.to(x.dtype).reshape(()) for p in (self.positive_scale, self.negative_scale)
        )
        return positive, negative

    def _sides(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """1 where w > D, and 1 where w < -D; NaN in both where w is NaN."""
        threshold = self.threshold * largest_magnitude(x.detach())
        nan = x.detach().clamp(-1, 1) * 0
        return (x > threshold).to(x.dtype) + nan, (x < -threshold).to(x.dtype) + nan

    def forward(self, x: Tensor) -> Tensor:
        return straight_through(self.value(x), x * self.slope(x).detach())

    def value(self, x: Tensor) -> Tensor:
        positive, negative = self._scales(x)
        above, below = self._sides(x)
        return positive * above - negative * below

    def slope(self, x: Tensor) -> Tensor:
        positive, negative = self._scales(x)
        above, below = self._sides(x)
        return 1 + (positive - 1) * above + (negative - 1) * below
