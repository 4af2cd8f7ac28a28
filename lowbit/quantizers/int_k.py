from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor

from lowbit.functional.affine import fake_quantize
from lowbit.functional.stats import over_channel
from lowbit.quantizers._base import Quantizer
from lowbit.quantizers._check import bit_width, number, one_of
from lowbit.quantizers._grid import LearnedGrid, extent, scale_and_zero_point
from lowbit.quantizers._learned_step import per_value
from lowbit.quantizers._registry import register
from lowbit.quantizers._scale import channel_axes, wide


@register("int_k", "int_affine")
class IntK(Quantizer):
    """Uniform affine quantization to integer codes of k bits.

    value  S (clamp(round(x / S) + Z, low, high) - Z): scale S, zero point Z, codes low … high
    slope  1 if low <= round(x / S) + Z <= high else 0

    Codes are -2^(bits-1) … 2^(bits-1) - 1 where signed, else 0 … 2^bits - 1, without the lowest
    of them where ``narrow_range``. The range always includes 0, and 0 comes out as exactly 0.
    Symmetric: S = 2 max|x| / (high - low) and Z = 0; unsigned S = max(x) / (high - low) and
    Z = low, so that values below 0 become 0. Else S = (max - min) / (high - low) and
    Z = low - round(min / S).

    Arguments: ``bits`` (2 … 8); ``signed``: whether codes are below 0 (unsigned and asymmetric,
    values are below 0 all the same); ``symmetric`` (default); ``per_channel``: one S and Z for each
    channel of the layer's weight or input; ``range``: "minmax" (default, of the tensor at hand),
    "moving_average" (of the minima and maxima seen in training; of the tensor at hand while
    there are none) or "learned" (S and Z are parameters that start from the first batch's
    min-max, with gradients as in ``lsq`` and ``lsq_plus``); ``narrow_range``; ``momentum``, the
    weight of the newest batch in the moving average.

    Source: Jacob et al. 2018, section 3; Krishnamoorthi 2018; the observers of torch.ao.
    """

    minimum: Tensor
    maximum: Tensor
    observed: Tensor

    def __init__(
        self,
        bits: int = 8,
        signed: bool = True,
        symmetric: bool = True,
        per_channel: bool = False,
        range: str = "minmax",
        narrow_range: bool = False,
        momentum: float = 0.1,
    ) -> None:
        super().__init__()
        bit_width("int_k", bits, 2, 8)
        one_of("int_k", "range", range, ("minmax", "moving_average", "learned"))
        number("int_k", "momentum", momentum, 0, 1)
        self.bits = bits
        self.signed = signed
        self.symmetric = symmetric
        self.per_channel = per_channel
        self.range = range
        self.narrow_range = narrow_range
        self.momentum = momentum
        self.low = (-(2 ** (bits - 1)) if signed else 0) + int(narrow_range)
        self.high = 2 ** (bits - 1) - 1 if signed else 2**bits - 1
        self.learned: LearnedGrid | None = None
        if range == "learned":
            self.learned = LearnedGrid(self.low, self.high, symmetric, per_channel)
        if range == "moving_average":
            self.register_buffer("minimum", torch.zeros(1))
            self.register_buffer("maximum", torch.zeros(1))
            self.register_buffer("observed", torch.tensor(False))

    def bind(self, channels: int, axis: int) -> None:
        super().bind(channels, axis)
        if self.learned is not None:
            self.learned.bind(channels, axis)
        if self.range == "moving_average" and self.per_channel:
            self.minimum = self.minimum.new_zeros(channels)
            self.maximum = self.maximum.new_zeros(channels)

    def _extent(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Smallest and largest value of the range, one of each or one for each channel."""
        if self.range == "minmax":
            axes = channel_axes(y, self.axis if self.per_channel else None)
            return extent(y, axes)
        minimum, maximum = extent(y, per_value(y, self.minimum, self.axis))
        return (
            torch.where(self.observed, self.minimum.to(y.dtype), minimum),
            torch.where(self.observed, self.maximum.to(y.dtype), maximum),
        )

    @torch.no_grad()
    def _observe(self, y: Tensor) -> None:
        """Move the average towards the batch's extremes, those of all processes together."""
        smallest, largest = extent(y, per_value(y, self.minimum, self.axis))
        if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
            dist.all_reduce(smallest, dist.ReduceOp.MIN)
            dist.all_reduce(largest, dist.ReduceOp.MAX)
        for average, batch in ((self.minimum, smallest), (self.maximum, largest)):
            batch = batch.to(average.dtype)
            moved = torch.lerp(average, batch, self.momentum)
            average.copy_(torch.where(self.observed, moved, batch))
        self.observed.fill_(True)

    def _grid(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Scale and zero point, laid over y."""
        if self.learned is not None:
            return self.learned.grid(y)
        minimum, maximum = self._extent(y)
        scale, zero_point = scale_and_zero_point(
            minimum, maximum, self.low, self.high, self.symmetric
        )
        return (
            over_channel(scale.reshape(-1), y, self.axis),
            over_channel(zero_point.reshape(-1), y, self.axis),
        )

    def forward(self, x: Tensor) -> Tensor:
        if self.learned is not None:
            return self.learned(x)
        if self.range == "moving_average" and self.training and x.numel() > 0:
            self._observe(wide(x.detach()))
        return super().forward(x)

    def value(self, x: Tensor) -> Tensor:
        if x.numel() == 0:
            return x.clone()
        y = wide(x)
        return fake_quantize(y, *self._grid(y), self.low, self.high).to(x.dtype)

    def slope(self, x: Tensor) -> Tensor:
        if x.numel() == 0:
            return x.clone()
        y = wide(x)
        scale, zero_point = self._grid(y)
        code = torch.round(y / scale) + zero_point
        return ((code >= self.low) & (code <= self.high)).to(x.dtype)
