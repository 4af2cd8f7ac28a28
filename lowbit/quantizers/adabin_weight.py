from torch import Tensor

from lowbit.quantizers._base import SignBased
from lowbit.quantizers._registry import register
from lowbit.quantizers._scale import TINY_VARIANCE, channel_axes, wide
from lowbit.quantizers.ede import Ede


@register("adabin_weight")
class AdabinWeight(SignBased):
    """Two values for each output channel, around its mean: the adaptive binary set.

    value  a s((w - b) / a) + b, with b the mean of w over output channel o and
           a = sqrt(E (w - b)^2)
    slope  ede((w - b) / a), with a and b held; the gradient itself goes through both of them

    Arguments: ``t_min`` and ``t_max`` of the slope, as in ``ede``, which follows the training.
    (The code without ``--progressive`` keeps t = 0.1: ``t_min`` = ``t_max`` = 0.1.)
    ``sign_zero``: the sign of 0, "plus" (default: +1) or "ternary" (0).

    Source: AdaBin, Tu et al. 2022; ``binarylib.py`` of its repository.
    """

    made_for = "weight"

    def __init__(self, t_min: float = 1e-3, t_max: float = 10.0, sign_zero: str = "plus") -> None:
        super().__init__(sign_zero)
        self.t_min = t_min
        self.t_max = t_max
        self.estimator = Ede(t_min, t_max, sign_zero)

    def set_progress(self, fraction: float) -> None:
        self.estimator.set_progress(fraction)

    def _centre_and_spread(self, w: Tensor) -> tuple[Tensor, Tensor]:
        axes = channel_axes(w, self.axis)
        centre = w.mean(axes, keepdim=True)
        variance = (w - centre).square().mean(axes, keepdim=True)
        return centre, variance.clamp_min(TINY_VARIANCE).sqrt()

    def forward(self, x: Tensor) -> Tensor:
        w = wide(x)
        centre, spread = self._centre_and_spread(w)
        return (spread * self.estimator((w - centre) / spread) + centre).to(x.dtype)

    def value(self, x: Tensor) -> Tensor:
        w = wide(x)
        centre, spread = self._centre_and_spread(w)
        return (spread * self.signs((w - centre) / spread) + centre).to(x.dtype)

    def slope(self, x: Tensor) -> Tensor:
        w = wide(x)
        centre, spread = self._centre_and_spread(w)
        return self.estimator.slope((w - centre) / spread).to(x.dtype)
