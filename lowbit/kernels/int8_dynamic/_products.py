"""Quantizing an input, and multiplying it, in as few calls of torch as there are."""

from __future__ import annotations

from ctypes import c_float

import torch
from torch import Tensor

from lowbit.functional.int8.quantize import choose_qparams
from lowbit.kernels.int8_dynamic._packed import Packed

# Up to so many products torch._int_mm and an epilogue of plain ops cost less than one call of the
# fused kernel; for one row always. Measured on AVX-512 VNNI, one thread.
FEW_PRODUCTS = 2**21


def quantized(x: Tensor, reduce_range: bool) -> tuple[Tensor, float, int] | None:
    """The integers of x (float32, not empty), its scale and zero point; None of NaN or infinity.

    The same bits as ``dynamic_qparams`` and ``quantize`` of lowbit.functional.int8.
    """
    low, high = torch.aminmax(x)
    try:
        scale, zero_point = choose_qparams(low.item(), high.item(), 0, 127 if reduce_range else 255)
    except ValueError:
        return None
    # A quotient of two float32 rounded in double and then in float32 is their float32 quotient.
    reciprocal = c_float(1 / c_float(scale).value).value
    codes = torch.mul(x, reciprocal).round_().add_(zero_point).clamp_(0, 255)
    return codes.to(torch.uint8), scale, zero_point


def multiply(
    codes: Tensor,
    scale: float,
    zero_point: int,
    w: Packed,
    bias: Tensor | None,
    relu: bool,
    int_mm: bool,
) -> Tensor:
    """``lowbit.functional.int8.linear`` of codes uint8 (m, k) to float32 (m, n).

    ``int_mm``: whether ``by_int_mm`` is exact here.
    """
    few = len(codes) == 1 or len(codes) * w.transposed.numel() <= FEW_PRODUCTS
    way = by_int_mm if few and int_mm else by_onednn
    return way(codes, scale, zero_point, w, bias, relu)


def by_int_mm(
    codes: Tensor, scale: float, zero_point: int, w: Packed, bias: Tensor | None, relu: bool
) -> Tensor:
    """``multiply`` by a product of integer matrices, and what follows in plain ops."""
    sums = torch._int_mm(codes, w.transposed)
    if zero_point:
        sums.add_(w.sums, alpha=-zero_point)
    y = sums * (w.scales * scale)
    if bias is not None:
        y.add_(bias)
    return y.relu_() if relu else y


def by_onednn(
    codes: Tensor, scale: float, zero_point: int, w: Packed, bias: Tensor | None, relu: bool
) -> Tensor:
    """``multiply`` by one kernel."""
    return torch.ops.onednn.qlinear_pointwise.default(
        *(codes, scale, zero_point, w.blocked, w.scales, w.zero_points, bias),
        *(1.0, 0, torch.float32, "relu" if relu else "none", [], ""),
    )
