"""Observers of a moving average of the extremes, for training."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lowbit.functional.int8.qparams import EPS
from lowbit.observers._base import UniformQuantizationObserverBase
from lowbit.observers.min_max import MinMaxObserver, PerChannelMinMaxObserver


class MovingAverage(UniformQuantizationObserverBase):
    """Mixin: the extremes move towards those of each input, by ``averaging_constant``."""

    averaging_constant: float

    def take(self, minimum: Tensor, maximum: Tensor) -> None:
        unseen = self.min_val > self.max_val
        for average, batch in ((self.min_val, minimum), (self.max_val, maximum)):
            moved = average + self.averaging_constant * (batch - average)
            average.copy_(torch.where(unseen, batch, moved))


class MovingAverageMinMaxObserver(MovingAverage, MinMaxObserver):
    """A moving average of the smallest and of the largest element of each input.

    min_val += c (min(x) - min_val), max_val likewise, with c the ``averaging_constant``; the
    first input sets both. With c = 1 it has no memory, and may be ``is_dynamic``.
    """

    def __init__(
        self,
        averaging_constant: float = 0.01,
        dtype: Any = torch.uint8,
        qscheme: Any = "per_tensor_affine",
        reduce_range: bool = False,
        quant_min: int | None = None,
        quant_max: int | None = None,
        eps: float = EPS,
        is_dynamic: bool = False,
        factory_kwargs: dict[str, Any] | None = None,
    ) -> None:
        self.averaging_constant = averaging_constant
        super().__init__(
            dtype, qscheme, reduce_range, quant_min, quant_max, factory_kwargs, eps, is_dynamic
        )

    def _check(self) -> None:
        self._refuse_reduced_symmetric()
        if self.is_dynamic and self.averaging_constant != 1:
            raise ValueError(
                "is_dynamic asks for a scale of each input alone, which is averaging_constant=1; "
                f"got {self.averaging_constant}"
            )


class MovingAveragePerChannelMinMaxObserver(MovingAverage, PerChannelMinMaxObserver):
    """A moving average of the extremes of each channel along ``ch_axis``.

    As ``MovingAverageMinMaxObserver``, with ``min_val`` and ``max_val`` of shape (channels,).
    """

    def __init__(
        self,
        averaging_constant: float = 0.01,
        ch_axis: int = 0,
        dtype: Any = torch.uint8,
        qscheme: Any = "per_channel_affine",
        reduce_range: bool = False,
        quant_min: int | None = None,
        quant_max: int | None = None,
        eps: float = EPS,
        is_dynamic: bool = False,
        factory_kwargs: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(
            ch_axis,
            dtype,
            qscheme,
            reduce_range,
            quant_min,
            quant_max,
            factory_kwargs,
            eps,
            is_dynamic,
        )
        self.averaging_constant = averaging_constant
