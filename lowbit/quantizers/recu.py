import math

import torch
from torch import Tensor

from lowbit.quantizers._base import SignBased
from lowbit.quantizers._registry import register
from lowbit.quantizers._scale import channel_axes, standardise, wide
from lowbit.quantizers._straight_through import closed_clamp
from lowbit.quantizers.sign import Sign


@register("recu")
class ReCU(SignBased):
    """Sign of standardised weights, whose tails are clamped so that they may flip again.

    value  s(clamp(z, -Q, Q)), with z = 2 sqrt(2) (w - mean_o) / sqrt(var_o + 1e-5) over output
           channel o and Q = -E|z| ln(2 - 2 tau), E over the whole tensor
    slope  2 sqrt(2) / sqrt(var_o + 1e-5) if |z| <= Q else 0, with mean and variance held; the
           gradient itself goes through both of them

    tau = A e^progress + B runs from ``tau_start`` to ``tau_end``. The method's learned scale of
    each output channel is a companion of the layer, not part of this.

    Arguments: ``tau_start`` and ``tau_end``, from 0.5 to below 1; ``sign_zero``: the sign of 0,
    "plus" (default: +1) or "ternary" (0).

    Source: ReCU, Xu et al. 2021; ``binarized_modules.py`` and ``main.py`` of its repository.
    """

    made_for = "weight"
    levels = (-1.0, 1.0)
    tau: Tensor

    def __init__(
        self, tau_start: float = 0.85, tau_end: float = 0.99, sign_zero: str = "plus"
    ) -> None:
        super().__init__(sign_zero)
        for name, tau in (("tau_start", tau_start), ("tau_end", tau_end)):
            if not 0.5 <= tau < 1:
                raise ValueError(f"recu needs {name} in [0.5, 1), a quantile; got {name}={tau!r}")
        self.tau_start = tau_start
        self.tau_end = tau_end
        self.estimator = Sign(sign_zero)
        self.register_buffer("tau", torch.tensor(float(tau_start)))

    def set_progress(self, fraction: float) -> None:
        share = math.expm1(fraction) / math.expm1(1)
        self.tau.fill_(self.tau_start + (self.tau_end - self.tau_start) * share)

    def _standardised(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """z, what a deviation of w from its mean is multiplied by, and Q."""
        w = wide(x)
        z, inverse = standardise(w, channel_axes(w, self.axis), added_variance=1e-5)
        factor = 2 * math.sqrt(2)
        z, inverse = factor * z, factor * inverse
        bound = -z.detach().abs().mean() * torch.log(2 - 2 * self.tau.to(w.dtype))
        return z, inverse, bound

    def forward(self, x: Tensor) -> Tensor:
        z, _, bound = self._standardised(x)
        return self.estimator(closed_clamp(z, -bound, bound)).to(x.dtype)

    def value(self, x: Tensor) -> Tensor:
        return self.signs(self._standardised(x)[0]).to(x.dtype)

    def slope(self, x: Tensor) -> Tensor:
        z, inverse, bound = self._standardised(x)
        return ((z.abs() <= bound).to(z.dtype) * inverse).to(x.dtype)
