"""Observers of the smallest and the largest element, of a tensor or of each channel."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lowbit.observers._base import UniformQuantizationObserverBase
from lowbit.observers._kinds import PER_CHANNEL, PER_TENSOR


class MinMaxObserver(UniformQuantizationObserverBase):
    """The smallest and the largest element of all that was seen.

    min_val = min(min_val, min(x)), max_val = max(max_val, max(x)); float32 scalars. An empty x
    changes nothing, a NaN makes both NaN. Arguments are those of the base; schemes per tensor.

    >>> observer = MinMaxObserver(dtype="qint8", qscheme="per_tensor_symmetric")
    >>> _ = observer(torch.tensor([-1.0, 0.5]))
    >>> observer.calculate_qparams()
    (tensor([0.0078]), tensor([0]))
    """

    schemes = PER_TENSOR

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._check()
        self.register_buffer("min_val", torch.full((), torch.inf, device=self.eps.device))
        self.register_buffer("max_val", torch.full((), -torch.inf, device=self.eps.device))

    def _check(self) -> None:
        self._refuse_reduced_symmetric()
        if self.is_dynamic:
            raise ValueError(
                f"{type(self).__name__} gathers what it saw, and is_dynamic asks for a scale of "
                "each input alone: use MovingAverageMinMaxObserver with averaging_constant=1"
            )

    def forward(self, x: Tensor) -> Tensor:
        if x.numel() > 0:
            self.take(*torch.aminmax(x.detach().float()))
        return x


class PerChannelMinMaxObserver(UniformQuantizationObserverBase):
    """The smallest and the largest element of each channel along ``ch_axis``.

    ``min_val`` and ``max_val`` are empty until the first input tells the number of channels,
    then (channels,) float32. Schemes per channel; with per_channel_affine_float_qparams scale
    and zero point lay exactly [min_val, max_val] over the integers (for embeddings).

    >>> observer = PerChannelMinMaxObserver(dtype="qint8", qscheme="per_channel_symmetric")
    >>> _ = observer(torch.tensor([[-1.0, 0.5], [2.0, 0.0]]))
    >>> observer.min_val, observer.max_val
    (tensor([-1.,  0.]), tensor([0.5000, 2.0000]))
    """

    schemes = PER_CHANNEL

    def __init__(
        self, ch_axis: int = 0, dtype: Any = torch.uint8, *args: Any, **kwargs: Any
    ) -> None:
        if not args:
            kwargs.setdefault("qscheme", "per_channel_affine")
        super().__init__(dtype, *args, **kwargs)
        self._check()
        self.ch_axis = ch_axis
        self.register_buffer("min_val", torch.empty(0, device=self.eps.device))
        self.register_buffer("max_val", torch.empty(0, device=self.eps.device))

    def _check(self) -> None:
        self._refuse_reduced_symmetric()
        if self.is_dynamic:
            raise ValueError(
                f"{type(self).__name__} cannot be dynamic: dynamic modules choose one scale for "
                "the whole input; use MovingAverageMinMaxObserver with averaging_constant=1"
            )

    def bind(self, channels: int) -> None:
        """Told how many channels there will be, so that no forward changes a shape."""
        if self.min_val.shape != (channels,):
            self.min_val.resize_(channels).fill_(torch.inf)
            self.max_val.resize_(channels).fill_(-torch.inf)

    def forward(self, x: Tensor) -> Tensor:
        if x.numel() > 0:
            self.bind(x.shape[self.ch_axis])
            rows = x.detach().float().movedim(self.ch_axis, 0).flatten(1)
            self.take(*torch.aminmax(rows, dim=1))
        return x

    def reset_min_max_vals(self) -> None:
        self.min_val.resize_(0)
        self.max_val.resize_(0)
