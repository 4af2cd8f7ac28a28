import math

import torch
from torch import Tensor, nn

from lowbit.functional.affine import round_ste
from lowbit.functional.stats import other_axes, over_channel
from lowbit.quantizers._initialise import DataInitialised
from lowbit.quantizers._registry import register


def scale_gradient(x: Tensor, factor: float) -> Tensor:
    """x, whose gradient is multiplied by ``factor``."""
    return x * factor + (x - x * factor).detach()


@register("lsq")
class Lsq(DataInitialised):
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

    def __init__(self, bits: int = 4, signed: bool = True, per_channel: bool = False) -> None:
        super().__init__()
        if not 2 <= bits <= 8:
            raise ValueError(f"lsq takes 2 to 8 bits; got bits={bits}")
        self.bits = bits
        self.signed = signed
        self.per_channel = per_channel
        self.low = -(2 ** (bits - 1)) if signed else 0
        self.high = 2 ** (bits - 1) - 1 if signed else 2**bits - 1
        self.step = nn.Parameter(torch.ones(1))

    def bind(self, channels: int, axis: int) -> None:
        super().bind(channels, axis)
        if self.per_channel:
            self.step = nn.Parameter(self.step.new_ones(channels))

    def initial(self, x: Tensor) -> dict[str, Tensor]:
        magnitude = x.abs().mean(other_axes(x, self.axis)) if self.per_channel else x.abs().mean()
        return {"step": (2 * magnitude / math.sqrt(self.high)).clamp_min(1e-8)}

    def _ratio(self, x: Tensor, step: Tensor) -> Tensor:
        return x / over_channel(step.to(x.dtype), x, self.axis)

    def forward(self, x: Tensor) -> Tensor:
        self.initialise(x)
        shared = x.numel() // self.step.numel()
        step = scale_gradient(self.step, 1 / math.sqrt(max(shared, 1) * self.high)).to(x.dtype)
        step = over_channel(step, x, self.axis)
        return step * round_ste(torch.clamp(x / step, self.low, self.high))

    def value(self, x: Tensor) -> Tensor:
        step = over_channel(self.step.to(x.dtype), x, self.axis)
        return step * torch.round(torch.clamp(x / step, self.low, self.high))

    def slope(self, x: Tensor) -> Tensor:
        ratio = self._ratio(x, self.step)
        return ((ratio >= self.low) & (ratio <= self.high)).to(x.dtype)
