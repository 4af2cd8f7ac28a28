"""Resizing images and volumes of quantized integers; scale and zero point stay as they are."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from lowbit.functional.int8.quantize import centred, round_to


def interpolate(
    values: Tensor,
    zero_point: int,
    size: int | tuple[int, ...] | list[int] | None = None,
    scale_factor: float | tuple[float, ...] | list[float] | None = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
) -> Tensor:
    """(n, c, h, w) to ``size`` or times ``scale_factor``; nearest of one and three axes as well.

    ``nearest`` picks integers. ``bilinear`` interpolates values - zero_point in float32, as
    ``torch.nn.functional.interpolate`` does, and rounds half to even.

    Raises NotImplementedError for other modes and numbers of axes, ValueError unless one of size
    and scale factor is given.
    """
    axes = values.dim() - 2
    if (mode, axes) not in (("nearest", 1), ("nearest", 2), ("nearest", 3), ("bilinear", 2)):
        raise NotImplementedError(
            f"interpolate with mode {mode!r} of a tensor with {axes} axes of places: integers "
            "have 'nearest' for one to three and 'bilinear' for two; dequantize for others"
        )
    if (size is None) == (scale_factor is None):
        raise ValueError(
            f"interpolate takes one of size and scale_factor, not {size} and {scale_factor}"
        )
    if mode == "nearest":
        # float64 holds every integer; align_corners has no meaning here.
        picked = F.interpolate(values.double(), size, scale_factor, mode)
        return picked.to(values.dtype)
    steps = F.interpolate(centred(values, zero_point), size, scale_factor, mode, align_corners)
    return round_to(steps, zero_point, values.dtype)
