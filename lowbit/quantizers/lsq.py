import math

import torch
from torch import Tensor

from lowbit.functional.affine import round_ste
from lowbit.functional.stats import over_channel
from lowbit.quantizers._learned_step import SMALLEST_STEP, LearnedStep, per_value, scaled_step
from lowbit.quantizers._registry import register
from lowbit.quantizers._scale import wide
from lowbit.quantizers._straight_through import closed_clamp


@register("lsq")
class Lsq(LearnedStep):
    """Uniform quantization with a learned step size s.

    value  s round(clip(x / s, -Qn, Qp)); signed: Qn = 2^(bits-1), Qp = 2^(bits-1) - 1;
           unsigned: Qn = 0, Qp = 2^bits - 1
    slope  1 if -Qn <= x / s <= Qp else 0

    The gradient of s is the sum of gradient * {-Qn below, round(x/s) - x/s inside, Qp above},
    times 1 / sqrt(N Qp) with N the number of elements that share s. The first batch sets
    s = 2 E|x| / sqrt(Qp).

    Arguments: ``bits`` (2 … 8), ``signed`` (True for weights, False after a ReLU),
    ``per_channel`` (one s for each channel of the layer's weight or input).

    Source: LSQ, Esser et al. 2020, eq. 1 to 3 and section 2.2.
    """

    def initial(self, x: Tensor) -> dict[str, Tensor]:
        magnitude = x.abs().mean(per_value(x, self.step, self.axis))
        return {"step": (2 * magnitude / math.sqrt(self.high)).clamp_min(SMALLEST_STEP)}

    def _step(self, x: Tensor) -> Tensor:
        return over_channel(scaled_step(self.step, x, self.high), x, self.axis)

    def forward(self, x: Tensor) -> Tensor:
        self.initialise(x)
        y = wide(x)
        step = self._step(y)
        return (step * round_ste(closed_clamp(y / step, self.low, self.high))).to(x.dtype)

    def value(self, x: Tensor) -> Tensor:
        y = wide(x)
        step = self._step(y)
        return (step * torch.round(torch.clamp(y / step, self.low, self.high))).to(x.dtype)

    def slope(self, x: Tensor) -> Tensor:
        y = wide(x)
        ratio = y / self._step(y)
        return ((ratio >= self.low) & (ratio <= self.high)).to(x.dtype)
