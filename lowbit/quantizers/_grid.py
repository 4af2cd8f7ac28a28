"""The integer grid of an affine quantizer: scale and zero point from a range, or learned."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lowbit.functional.affine import fake_quantize, round_ste
from lowbit.functional.stats import over_channel
from lowbit.quantizers._initialise import DataInitialised
from lowbit.quantizers._learned_step import per_value, scaled_step
from lowbit.quantizers._scale import wide
from lowbit.quantizers._straight_through import closed_clamp

# The smallest scale, as in the observers of torch.ao.
SMALLEST_SCALE = torch.finfo(torch.float32).eps


def extent(x: Tensor, axes: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Smallest and largest element over ``axes`` and 0: the range always includes 0."""
    return x.amin(axes).clamp_max(0), x.amax(axes).clamp_min(0)


def scale_and_zero_point(
    minimum: Tensor, maximum: Tensor, low: int, high: int, symmetric: bool
) -> tuple[Tensor, Tensor]:
    """The grid that lays [minimum, maximum] over the codes low … high; 0 is one of its points.

    Symmetric: zero point 0 and scale = 2 max|x| / (high - low), or, where no code is negative,
    zero point low and scale = maximum / (high - low). Else: scale = (maximum - minimum) /
    (high - low) and zero point = low - round(minimum / scale). Source: Jacob et al. 2018; the
    observers of torch.ao.
    """
    if symmetric:
        reach = 2 * torch.maximum(-minimum, maximum) if low < 0 else maximum
        scale = (reach / (high - low)).clamp_min(SMALLEST_SCALE)
        return scale, torch.full_like(scale, max(low, 0))
    scale = ((maximum - minimum) / (high - low)).clamp_min(SMALLEST_SCALE)
    return scale, torch.clamp(low - torch.round(minimum / scale), low, high)


class LearnedGrid(DataInitialised):
    """A grid with learned scale and, where it is not symmetric, learned zero point.

    value  scale (clamp(round(x / scale) + Z, low, high) - Z), with Z the ``zero_point`` rounded
    slope  1 if low <= round(x / scale) + Z <= high else 0

    The gradients are those of LSQ for the scale and of LSQ+ for the zero point, both times
    1 / sqrt(N high). The first batch sets them from its smallest and largest element.
    """

    def __init__(self, low: int, high: int, symmetric: bool, per_channel: bool) -> None:
        super().__init__()
        self.low = low
        self.high = high
        self.symmetric = symmetric
        self.per_channel = per_channel
        self.scale = nn.Parameter(torch.ones(1))
        self.zero_point = None if symmetric else nn.Parameter(torch.zeros(1))

    def extra_repr(self) -> str:
        return ""  # the quantizer that holds this says it all

    def bind(self, channels: int, axis: int) -> None:
        super().bind(channels, axis)
        if self.per_channel:
            self.scale = nn.Parameter(self.scale.new_ones(channels))
            if self.zero_point is not None:
                self.zero_point = nn.Parameter(self.zero_point.new_zeros(channels))

    def initial(self, x: Tensor) -> dict[str, Tensor]:
        minimum, maximum = extent(x, per_value(x, self.scale, self.axis))
        scale, zero_point = scale_and_zero_point(
            minimum, maximum, self.low, self.high, self.symmetric
        )
        return {"scale": scale} if self.symmetric else {"scale": scale, "zero_point": zero_point}

    def grid(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Scale and whole zero point, laid over y."""
        scale = over_channel(scaled_step(self.scale, y, self.high), y, self.axis)
        if self.zero_point is None:
            return scale, torch.full_like(scale, max(self.low, 0))
        zero_point = round_ste(scaled_step(self.zero_point, y, self.high))
        return scale, over_channel(closed_clamp(zero_point, self.low, self.high), y, self.axis)

    def forward(self, x: Tensor) -> Tensor:
        self.initialise(x)
        y = wide(x)
        scale, zero_point = self.grid(y)
        code = closed_clamp(round_ste(y / scale) + zero_point, self.low, self.high)
        return (scale * (code - zero_point)).to(x.dtype)

    def value(self, x: Tensor) -> Tensor:
        y = wide(x)
        return fake_quantize(y, *self.grid(y), self.low, self.high).to(x.dtype)
