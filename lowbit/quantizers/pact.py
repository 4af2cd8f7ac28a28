import torch
from torch import Tensor, nn

from lowbit.quantizers._base import Quantizer
from lowbit.quantizers._check import bit_width, number
from lowbit.quantizers._registry import register
from lowbit.quantizers._scale import wide
from lowbit.quantizers._straight_through import closed_clamp, straight_through

SMALLEST_ALPHA = 1e-5


@register("pact")
class Pact(Quantizer):
    """Inputs clipped to [0, alpha], alpha learned, and rounded to 2^bits values.

    value  round(clip(x, 0, alpha) n / alpha) alpha / n, with n = 2^bits - 1 and alpha at
           least 1e-5
    slope  1 if 0 <= x <= alpha else 0

    The gradient of ``alpha`` is the sum of the gradients where x >= alpha. The method decays
    it: give quantizer parameters a weight decay in the optimizer.

    Arguments: ``bits`` (1 … 8); ``alpha_init``, the first alpha.

    Source: PACT, Choi et al. 2018; alpha_init = 8 from Distiller.
    """

    made_for = "input"
    signed = False

    def __init__(self, bits: int = 4, alpha_init: float = 8.0) -> None:
        super().__init__()
        bit_width("pact", bits, 1, 8)
        number("pact", "alpha_init", alpha_init, 0, open_=True)
        self.bits = bits
        self.alpha_init = alpha_init
        self.steps = 2**bits - 1
        self.alpha = nn.Parameter(torch.tensor([float(alpha_init)]))

    def _alpha(self, x: Tensor) -> Tensor:
        return self.alpha.detach().to(x.dtype).reshape(()).clamp_min(SMALLEST_ALPHA)

    def forward(self, x: Tensor) -> Tensor:
        y = wide(x)
        held = self._alpha(y)
        above = (y >= held).to(y.dtype)
        clipped = closed_clamp(y, 0, held) + above * self.alpha.to(y.dtype).reshape(())
        return straight_through(self._rounded(y, held), clipped).to(x.dtype)

    def _rounded(self, y: Tensor, alpha: Tensor) -> Tensor:
        clipped = y.detach().clamp_min(0).clamp_max(alpha)
        return torch.round(clipped * self.steps / alpha) * alpha / self.steps

    def value(self, x: Tensor) -> Tensor:
        y = wide(x)
        return self._rounded(y, self._alpha(y)).to(x.dtype)

    def slope(self, x: Tensor) -> Tensor:
        y = wide(x)
        return ((y >= 0) & (y <= self._alpha(y))).to(x.dtype)
