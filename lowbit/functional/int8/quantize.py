"""Real numbers to integers and back: the rounding and the limits that all of int8 shares.

Arithmetic is in float32, and 1/s is rounded to float32 before it multiplies: that is how
``torch.quantize_per_tensor`` and ONNX's QuantizeLinear place their ties.
Source: Jacob et al. 2018, "Quantization and Training of Neural Networks for Efficient
Integer-Arithmetic-Only Inference", equation 1.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lowbit.functional.int8.dtypes import limits, plain_dtype

# The reciprocal of 2^-128 is infinite in float32.
_TOO_SMALL, _GREATEST = 2.0**-128, torch.finfo(torch.float32).max
# 6.1e-5 in float32, below which FBGEMM lets no chosen scale go.
_SMALL_SCALE = 6.0999998822808266e-05


def quantize(
    x: Tensor,
    scale: float | Tensor,
    zero_point: int | Tensor,
    dtype: torch.dtype | str,
    axis: int | None = None,
) -> Tensor:
    """The integers of x (float32, float16 or bfloat16), in its shape.

    clamp(round(x * (1/scale)) + zero_point), rounded half to even, saturating at the limits of
    ``dtype``; NaN becomes the least of them. With ``axis``, ``scale`` and ``zero_point`` are
    vectors along it. A zero point in floating point is added before rounding, as for embeddings.

    Raises TypeError where x has another dtype, ValueError for scales that are not positive and
    finite, zero points that ``dtype`` cannot hold, and vectors of another length than the axis.

    >>> quantize(torch.tensor([-1.0, 0.25, 0.75, 99.0]), 0.5, 10, "uint8")
    tensor([  8,  10,  12, 208], dtype=torch.uint8)
    """
    dtype = plain_dtype(dtype)
    check_real(x)
    if axis is None:
        check_qparams(scale, zero_point, dtype)
    else:
        scale, zero_point = along_axis(scale, zero_point, x, axis)
        check_qparams(scale, zero_point, dtype)
    return round_to(x.float() * reciprocal(scale, x.device), zero_point, dtype)


def dequantize(
    values: Tensor, scale: float | Tensor, zero_point: int | Tensor, axis: int | None = None
) -> Tensor:
    """The real numbers, in float32, that integers stand for: (values - zero_point) * scale.

    One scale multiplies in float32, the scales of channels in their own precision; so does torch.

    >>> dequantize(torch.tensor([8, 10, 12], dtype=torch.uint8), 0.5, 10)
    tensor([-1., 0., 1.])
    """
    if axis is None:
        return centred(values, zero_point) * (scale.float() if isinstance(scale, Tensor) else scale)
    scales, zero_points = along_axis(scale, zero_point, values, axis)
    if zero_points.is_floating_point():
        return centred(values, zero_points) * scales.float()
    return ((values.double() - zero_points) * scales).float()


def centred(values: Tensor, zero_point: int | Tensor) -> Tensor:
    """values - zero_point in float32; exact before it is rounded, for int32 as well."""
    if isinstance(zero_point, Tensor) and zero_point.is_floating_point():
        return values.float() - zero_point.float()
    if values.dtype == torch.int32:
        return (values.long() - zero_point).float()
    return values.float() - zero_point


def reciprocal(scale: float | Tensor, device: torch.device | None = None) -> Tensor:
    """1/scale, scale and result rounded to float32."""
    if not isinstance(scale, Tensor):
        scale = torch.tensor(scale, dtype=torch.float32, device=device)
    return 1.0 / scale.float()


def round_to(steps: Tensor, zero_point: int | Tensor, dtype: torch.dtype) -> Tensor:
    """clamp(round(steps) + zero_point) as integers; ``steps`` counts scales, in floating point.

    Half to even. NaN becomes the least integer. A floating-point zero point is added first.
    """
    low, high = limits(dtype)
    if isinstance(zero_point, Tensor) and zero_point.is_floating_point():
        steps, zero_point = steps + zero_point.float(), 0
    codes = torch.round(steps).add_(zero_point)
    if dtype == torch.int32:
        codes = codes.double()  # float32 does not hold these limits
    # In place, and no torch.where: that takes ten times as long as all the rest.
    return codes.nan_to_num_(low, high, low).clamp_(low, high).to(dtype)


def choose_qparams(
    low: float, high: float, quant_min: int = 0, quant_max: int = 255
) -> tuple[float, int]:
    """Scale and zero point with which integers span the real numbers from low to high.

    The range is extended to hold 0, scale = (high - low) / (quant_max - quant_min), and the zero
    point is rounded from the end of the range that gives it the smaller error. A scale whose
    reciprocal is infinite becomes 0.1; one below 6.1e-5 becomes that. In double precision.

    Raises ValueError for limits that are not finite or not in order.
    Source: FBGEMM, ChooseQuantizationParams; Jacob et al. 2018, section 3.

    >>> choose_qparams(-1.0, 3.0, 0, 255)
    (0.01568627450980392, 64)
    """
    if not (math.isfinite(low) and math.isfinite(high) and low <= high):
        raise ValueError(f"the range [{low}, {high}] must be finite and in order to be quantized")
    low, high = min(low, 0.0), max(high, 0.0)
    scale = (high - low) / (quant_max - quant_min)
    if scale <= _TOO_SMALL:
        scale = 0.1
    if scale < _SMALL_SCALE:
        if low == 0:
            high = _SMALL_SCALE * (quant_max - quant_min)
        elif high == 0:
            low = -_SMALL_SCALE * (quant_max - quant_min)
        else:
            low, high = low * (_SMALL_SCALE / scale), high * (_SMALL_SCALE / scale)
        scale = _SMALL_SCALE
    from_low, from_high = quant_min - low / scale, quant_max - high / scale
    low_is_better = abs(quant_min) - low / scale < abs(quant_max) + high / scale
    zero_point = round(from_low if low_is_better else from_high)
    return scale, min(max(zero_point, quant_min), quant_max)


def dynamic_qparams(x: Tensor, reduce_range: bool = False) -> tuple[float, int]:
    """Scale and zero point of a whole tensor for uint8: ``choose_qparams`` of its extremes.

    ``reduce_range`` takes 7 of the 8 bits, for processors whose int8 products overflow.
    An empty x has the range of a single 0.
    """
    if x.numel() == 0:
        return choose_qparams(0.0, 0.0, 0, 127 if reduce_range else 255)
    low, high = torch.aminmax(x.float())
    return choose_qparams(low.item(), high.item(), 0, 127 if reduce_range else 255)


def check_real(x: Tensor) -> None:
    """TypeError unless float32 holds every value of x's dtype."""
    if x.dtype not in (torch.float32, torch.float16, torch.bfloat16):
        raise TypeError(
            f"cannot quantize {str(x.dtype).removeprefix('torch.')}: "
            "float32, float16 and bfloat16 can be; convert with x.float() first"
        )


def check_qparams(scale: float | Tensor, zero_point: int | Tensor, dtype: torch.dtype) -> None:
    """ValueError unless every scale is positive and finite and ``dtype`` holds every zero point.

    Nothing is checked of tensors while a graph of them is being traced.
    """
    low, high = limits(dtype)
    if isinstance(scale, Tensor):
        if torch.compiler.is_compiling():
            return
        good = (scale > _TOO_SMALL) & (scale <= _GREATEST)
        if not bool(good.all()):
            scale = scale[~good].flatten()[0].item() if scale.ndim else scale.item()
    if not isinstance(scale, Tensor) and not _TOO_SMALL < scale <= _GREATEST:
        raise ValueError(
            f"a scale must be positive and finite, as its reciprocal in float32, not {scale}"
        )
    if isinstance(zero_point, Tensor):
        if torch.compiler.is_compiling() or zero_point.is_floating_point():
            return
        outside = (zero_point < low) | (zero_point > high)
        if bool(outside.any()):
            zero_point = int(zero_point[outside].flatten()[0])
    if not isinstance(zero_point, Tensor) and not low <= zero_point <= high:
        raise ValueError(f"zero point {zero_point} is outside [{low}, {high}] of {dtype}")


def along_axis(
    scale: float | Tensor, zero_point: int | Tensor, x: Tensor, axis: int
) -> tuple[Tensor, Tensor]:
    """Vectors of scales and zero points in the shape that broadcasts along ``axis`` of x."""
    if not -x.ndim <= axis < x.ndim:
        raise ValueError(f"axis {axis} is outside a tensor of shape {tuple(x.shape)}")
    scales, zero_points = torch.as_tensor(scale), torch.as_tensor(zero_point)
    for name, vector in (("scales", scales), ("zero points", zero_points)):
        if vector.shape != (x.shape[axis],):
            raise ValueError(
                f"{name} of shape {tuple(vector.shape)} for axis {axis} of a tensor of shape "
                f"{tuple(x.shape)}: one for each of its {x.shape[axis]} channels is needed"
            )
    shape = [1] * x.ndim
    shape[axis] = -1
    return scales.reshape(shape), zero_points.reshape(shape)
