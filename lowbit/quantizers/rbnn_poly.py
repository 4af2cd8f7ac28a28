import math

import torch
from torch import Tensor

from lowbit.quantizers._registry import register
from lowbit.quantizers._scale import channel_axes, sample_axes, standardise, wide
from lowbit.quantizers._sharpening import SharpeningSign
from lowbit.quantizers._straight_through import straight_through


@register("rbnn_poly")
class RbnnPoly(SharpeningSign):
    """Sign, with the slope of a piecewise parabola that sharpens as training goes.

    value  +1 if x >= 0 else -1
    slope  max(0, k (sqrt(2) t - t^2 |x|)), with
           t = 10^(lg t_min + progress (lg t_max - lg t_min)) and k = max(1/t, 1); for
           activations k = 1 and t is at least 1

    The estimator of RBNN only; its rotation of the weights is not part of it.

    Arguments: ``t_min``, ``t_max``; ``activation``: True for an input quantizer, False
    (default) for a weight quantizer; ``standardise``: put z = (x - mean) / deviation in place of
    x, with the statistics of each sample, or of each output channel of a weight, as the released
    code does (default: False; the gradient goes through both); ``sign_zero``: the sign of 0,
    "plus" (default: +1) or "ternary" (0).

    Source: RBNN, Lin et al. 2020; ``binarized_modules.py`` of its repository.
    """

    def __init__(
        self,
        t_min: float = 1e-2,
        t_max: float = 10.0,
        activation: bool = False,
        standardise: bool = False,
        sign_zero: str = "plus",
    ) -> None:
        super().__init__(t_min, t_max, sign_zero)
        self.activation = activation
        self.standardise = standardise

    @property
    def is_local(self) -> bool:
        return not self.standardise

    @property
    def value_is_sign(self) -> bool:  # type: ignore[override]
        return super().value_is_sign and not self.standardise

    def _standardised(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """z, and 1 / deviation."""
        y = wide(x)
        axes = sample_axes(y, self.axis) if self.activation else channel_axes(y, self.axis)
        return standardise(y, axes)

    def forward(self, x: Tensor) -> Tensor:
        if not self.standardise:
            return super().forward(x)
        z, _ = self._standardised(x)
        return straight_through(self.signs(z), z * self._parabola(z).detach()).to(x.dtype)

    def value(self, x: Tensor) -> Tensor:
        if not self.standardise:
            return super().value(x)
        return self.signs(self._standardised(x)[0]).to(x.dtype)

    def slope(self, x: Tensor) -> Tensor:
        if not self.standardise:
            return self._parabola(x)
        z, inverse = self._standardised(x)
        return (self._parabola(z) * inverse).to(x.dtype)

    def _parabola(self, x: Tensor) -> Tensor:
        t = self.t.to(x.dtype)
        if self.activation:
            t = t.clamp_min(1)
            k = torch.ones_like(t)
        else:
            k = (1 / t).clamp_min(1)
        return (k * (math.sqrt(2) * t - t.square() * x.abs())).clamp_min(0)
