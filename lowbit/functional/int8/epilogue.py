"""What follows the integer sums of a linear layer or a convolution.

With integer sums a over (x - zero point) * (w - zero point), all in float32 and in this order:

    y = (a * x_scale) * w_scale + bias                              real numbers
    y = y + (residual - residual_zero_point) * residual_scale       if there is a residual
    y = max(y, 0)                                                   if relu
    q = clamp(round(y * (1/out_scale) + out_zero_point))            half to even; not for float32

The zero point is added before rounding, as oneDNN does; in FBGEMM it comes after, which differs
at ties if it is odd. These are oneDNN's bits, in the versions that torch 2.11 and 2.15 bring.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lowbit.functional.int8.quantize import check_qparams, reciprocal, round_to

OUTPUTS = (torch.uint8, torch.int8, torch.float32)


def real_sums(
    sums: Tensor, x_scale: float, w_scales: float | Tensor, bias: Tensor | None, axis: int
) -> Tensor:
    """Integer sums, of any dtype, to real numbers in float32: (sums * x_scale) * w_scales + bias.

    ``w_scales`` of one value or, as ``bias``, one for each index of ``axis``.
    """
    y = sums.float() * x_scale
    y = y * (along(w_scales.float(), y, axis) if isinstance(w_scales, Tensor) else w_scales)
    return y if bias is None else y + along(bias.float(), y, axis)


def finish(
    y: Tensor,
    out_scale: float,
    out_zero_point: int,
    out_dtype: torch.dtype,
    relu: bool = False,
    residual: Tensor | None = None,
    residual_scale: float = 1.0,
    residual_zero_point: int = 0,
) -> Tensor:
    """Real numbers to the output: residual, ReLU, rounding. float32 outputs are not rounded."""
    if residual is not None:
        if residual.dtype == torch.float32:
            y = y + residual
        else:
            y = y + (residual.float() - residual_zero_point) * residual_scale
    if relu:
        y = y.relu()
    if out_dtype == torch.float32:
        return y
    zero_point = torch.tensor(float(out_zero_point), device=y.device)
    return round_to(y * reciprocal(out_scale, y.device), zero_point, out_dtype)


def along(vector: Tensor, y: Tensor, axis: int) -> Tensor:
    """A vector of one value, or of one for each index of ``axis``, in a shape to broadcast."""
    shape = [1] * y.ndim
    shape[axis] = -1
    return vector.reshape(shape)


def check_operands(
    x: Tensor,
    weight: Tensor,
    w_scales: float | Tensor,
    w_zero_points: int | Tensor | None,
    bias: Tensor | None,
    channels: int,
    out_dtype: torch.dtype,
) -> None:
    """TypeError for a dtype, ValueError for a size, that linear and convolutions do not take."""
    if x.dtype not in (torch.uint8, torch.int8):
        raise TypeError(f"the input is uint8 or int8, not {x.dtype}; quantize it first")
    if weight.dtype != torch.int8:
        raise TypeError(f"the weight is int8, not {weight.dtype}; quantize it to int8")
    if out_dtype not in OUTPUTS:
        raise TypeError(f"the output is uint8, int8 or float32, not {out_dtype}")
    for name, vector in (("scales", w_scales), ("zero points", w_zero_points)):
        if isinstance(vector, Tensor) and vector.numel() not in (1, channels):
            raise ValueError(
                f"{vector.numel()} {name} for a weight of {channels} output channels; "
                "one, or one for each channel, is needed"
            )
    if bias is not None and bias.shape != (channels,):
        raise ValueError(
            f"bias of shape {tuple(bias.shape)} for {channels} output channels; ({channels},) "
            "is needed"
        )


def check_residual(residual: Tensor | None, shape: tuple[int, ...]) -> None:
    """TypeError, ValueError for what cannot be added to an output of this shape."""
    if residual is None:
        return
    if residual.dtype not in OUTPUTS:
        raise TypeError(f"the residual is uint8, int8 or float32, not {residual.dtype}")
    if tuple(residual.shape) != tuple(shape):
        raise ValueError(
            f"residual of shape {tuple(residual.shape)}, output of shape {tuple(shape)}: "
            "they must be equal"
        )


def check_scales(
    x: Tensor,
    x_scale: float,
    x_zero_point: int,
    out_scale: float,
    out_zero_point: int,
    out_dtype: torch.dtype,
    residual: Tensor | None,
    residual_scale: float,
    residual_zero_point: int,
) -> None:
    """ValueError unless scales are positive and finite and dtypes hold their zero points."""
    check_qparams(x_scale, x_zero_point, x.dtype)
    if out_dtype != torch.float32:
        check_qparams(out_scale, out_zero_point, out_dtype)
    if residual is not None and residual.dtype != torch.float32:
        check_qparams(residual_scale, residual_zero_point, residual.dtype)
