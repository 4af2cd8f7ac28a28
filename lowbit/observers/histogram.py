"""The observer that searches a histogram for the range with the smallest squared error."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor

from lowbit.functional.int8.qparams import EPS
from lowbit.observers._base import UniformQuantizationObserverBase
from lowbit.observers._best_range import best_range, rebinned
from lowbit.observers._kinds import PER_TENSOR, integers


class HistogramObserver(UniformQuantizationObserverBase):
    """A histogram of all that was seen, cut where that makes the squared error smaller.

    ``histogram`` has ``bins`` counts over [min_val, max_val]; an input beyond that range widens
    it. ``calculate_qparams`` cuts its ends off as long as the error of quantizing it in as many
    codes as the dtype has falls (_best_range.py), and lays the rest over the integers.

    Infinite elements are left out, with a warning. Raises ValueError for NaN.
    """

    schemes = PER_TENSOR
    histogram: Tensor

    def __init__(
        self,
        bins: int = 2048,
        dtype: Any = torch.uint8,
        qscheme: Any = "per_tensor_affine",
        reduce_range: bool = False,
        quant_min: int | None = None,
        quant_max: int | None = None,
        factory_kwargs: dict[str, Any] | None = None,
        eps: float = EPS,
        is_dynamic: bool = False,
    ) -> None:
        if is_dynamic:
            raise ValueError(
                "HistogramObserver cannot be dynamic: it needs many inputs; use "
                "MovingAverageMinMaxObserver with averaging_constant=1"
            )
        super().__init__(
            dtype, qscheme, reduce_range, quant_min, quant_max, factory_kwargs, eps, is_dynamic
        )
        self.bins = bins
        _, low, high = integers(dtype)
        self.dst_nbins = high - low + 1
        device = self.eps.device
        self.register_buffer("histogram", torch.zeros(bins, device=device))
        self.register_buffer("min_val", torch.full((), torch.inf, device=device))
        self.register_buffer("max_val", torch.full((), -torch.inf, device=device))

    def forward(self, x: Tensor) -> Tensor:
        y = x.detach().float()
        if y.numel() > 0 and bool(y.isinf().any()):
            warnings.warn("left out the infinite elements of an input", stacklevel=2)
            y = y[~y.isinf()]
        if y.numel() > 0:
            self._take_in(y)
        return x

    def _take_in(self, x: Tensor) -> None:
        minimum, maximum = torch.aminmax(x)
        if bool(minimum.isnan()):
            raise ValueError(
                "HistogramObserver was given NaN, which no range includes; find where the model "
                "makes it, as with torch.autograd.set_detect_anomaly"
            )
        old = (self.min_val.clone(), self.max_val.clone())
        new = (torch.minimum(old[0], minimum), torch.maximum(old[1], maximum))
        counts = torch.histc(x, self.bins, min=new[0].item(), max=new[1].item())
        if bool(old[0] <= old[1]):
            counts = rebinned(self.histogram, old, new) + counts
        self.histogram.copy_(counts)
        self.min_val.copy_(new[0])
        self.max_val.copy_(new[1])

    def current(self) -> tuple[Tensor, Tensor]:
        return self.grid(*best_range(self.histogram, self.min_val, self.max_val, self.dst_nbins))

    def reset_min_max_vals(self) -> None:
        super().reset_min_max_vals()
        self.histogram.zero_()
