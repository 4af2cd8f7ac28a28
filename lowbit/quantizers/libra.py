import torch
from torch import Tensor

from lowbit.quantizers._base import SignBased
from lowbit.quantizers._registry import register
from lowbit.quantizers._scale import channel_axes, standardise, wide
from lowbit.quantizers.ede import Ede


@register("libra")
class Libra(SignBased):
    """Sign of standardised weights times a power of two, so that half of them are +1.

    value  a_o s(z), with z = (w - mean_o) / deviation_o over output channel o and
           a_o = 2^round(log2 E|z|), held constant
    slope  a_o ede(z) / deviation_o, with mean and deviation held; the gradient itself goes
           through both of them

    Arguments: ``t_min`` and ``t_max`` of the slope, as in ``ede``, which follows the training;
    ``sign_zero``: the sign of 0, "plus" (default: +1) or "ternary" (0).

    Source: Libra-PB of IR-Net, Qin et al. 2020; ``ir_1w1a.py`` of its repository.
    """

    made_for = "weight"

    def __init__(self, t_min: float = 1e-3, t_max: float = 10.0, sign_zero: str = "plus") -> None:
        super().__init__(sign_zero)
        self.t_min = t_min
        self.t_max = t_max
        self.estimator = Ede(t_min, t_max, sign_zero)

    def set_progress(self, fraction: float) -> None:
        self.estimator.set_progress(fraction)

    def _standardised(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """z, 1 / deviation and a."""
        w = wide(x)
        axes = channel_axes(w, self.axis)
        z, inverse = standardise(w, axes)
        scale = torch.exp2(torch.round(torch.log2(z.detach().abs().mean(axes, keepdim=True))))
        return z, inverse, scale

    def forward(self, x: Tensor) -> Tensor:
        z, _, scale = self._standardised(x)
        return (scale * self.estimator(z)).to(x.dtype)

    def value(self, x: Tensor) -> Tensor:
        z, _, scale = self._standardised(x)
        return (scale * self.signs(z)).to(x.dtype)

    def slope(self, x: Tensor) -> Tensor:
        z, inverse, scale = self._standardised(x)
        return (scale * self.estimator.slope(z) * inverse).to(x.dtype)
