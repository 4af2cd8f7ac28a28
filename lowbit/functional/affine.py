"""Uniform quantization: round to a grid, in floating point."""

from __future__ import annotations

import torch
from torch import Tensor


def round_ste(x: Tensor) -> Tensor:
    """Round half to even, with the gradient of the identity (straight-through)."""
    return x + (torch.round(x) - x).detach()


def fake_quantize(x: Tensor, scale: Tensor, zero_point: Tensor, low: int, high: int) -> Tensor:
    """The value that the integer code of x stands for.

    scale * (clamp(round(x / scale) + zero_point, low, high) - zero_point)

    ``scale`` and ``zero_point`` broadcast against ``x``; rounding is half to even.
    Source: Jacob et al. 2018, "Quantization and Training of Neural Networks for Efficient
    Integer-Arithmetic-Only Inference", section 3.
    """
    code = torch.clamp(torch.round(x / scale) + zero_point, low, high)
    return scale * (code - zero_point)
