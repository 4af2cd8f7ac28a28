"""From real numbers to ``QTensor`` and back."""

from __future__ import annotations

import torch
from torch import Tensor

from lowbit.functional import int8
from lowbit.functional.int8.dtypes import plain_dtype
from lowbit.kernels import int8 as kernels
from lowbit.qtensor._qtensor import QTensor


def quantize_per_tensor(
    x: Tensor, scale: float | Tensor, zero_point: int | Tensor, dtype: torch.dtype | str
) -> QTensor:
    """x (float32, float16, bfloat16) as integers with one scale and one zero point.

    clamp(round(x / scale) + zero_point) as ``lowbit.functional.int8.quantize`` says it, with its
    errors. ``dtype`` is ``torch.uint8``, ``torch.quint8``, ``"uint8"``, … Scale and zero point may
    be tensors of one element; under ``torch.compile`` numbers are better, which are constants.

    >>> quantize_per_tensor(torch.tensor([-1.0, 0.0, 2.0]), 0.5, 2, "quint8")
    QTensor([0, 2, 6], dtype=torch.uint8, scale=0.5, zero_point=2)
    """
    if isinstance(scale, Tensor):
        scale = scale.item()
    if isinstance(zero_point, Tensor):
        zero_point = int(zero_point.item())
    return QTensor(kernels.quantize(x, scale, zero_point, dtype), scale, zero_point)


def quantize_per_channel(
    x: Tensor, scales: Tensor, zero_points: Tensor, axis: int, dtype: torch.dtype | str
) -> QTensor:
    """x as integers with a scale and a zero point for each index of ``axis``.

    ``scales`` and ``zero_points`` are vectors; real zero points are added before rounding, as
    torch's ``per_channel_affine_float_qparams`` does. Errors as ``quantize_per_tensor``.
    """
    dtype = plain_dtype(dtype)
    return QTensor(int8.quantize(x, scales, zero_points, dtype, axis), scales, zero_points, axis)


def dequantize(x: QTensor | Tensor) -> Tensor:
    """The real numbers of a QTensor, in float32; a float tensor as it is.

    TypeError for integers without a scale.
    """
    if isinstance(x, QTensor):
        return x.dequantize()
    if not x.is_floating_point():
        raise TypeError(f"{x.dtype} without a scale has no real value; QTensor gives it one")
    return x
