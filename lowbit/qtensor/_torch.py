"""To and from torch's own quantized tensors, where torch still has them."""

from __future__ import annotations

import torch
from torch import Tensor

from lowbit.qtensor._qtensor import QTensor


def to_torch_quantized(q: QTensor) -> Tensor:
    """The same integers, scale and zero point as a tensor of ``torch.quint8``, ``qint8``, ….

    Raises RuntimeError where torch has no quantized tensors any more.
    """
    try:
        if q.axis is None:
            return torch._make_per_tensor_quantized_tensor(q.values, q.q_scale(), q.q_zero_point())
        return torch._make_per_channel_quantized_tensor(
            q.values, q.q_per_channel_scales(), q.q_per_channel_zero_points(), q.axis
        )
    except AttributeError as error:
        raise RuntimeError(
            f"torch {torch.__version__} has no quantized tensors; QTensor.values holds the integers"
        ) from error


def from_torch_quantized(x: Tensor) -> QTensor:
    """A ``QTensor`` of a quantized tensor of torch: per tensor, per channel, float zero points.

    Raises TypeError where x is not quantized. 4-bit tensors, whose bytes hold two integers each,
    are refused with ValueError: ``lowbit.functional.int8.embedding`` unpacks them.
    """
    if not getattr(x, "is_quantized", False) or isinstance(x, QTensor):
        raise TypeError(f"{type(x).__name__} of {x.dtype} is not a quantized tensor of torch")
    if str(x.dtype) in ("torch.quint4x2", "torch.quint2x4"):
        raise ValueError(f"{x.dtype} packs several integers into a byte: unpack_rows() first")
    if x.qscheme() in (torch.per_tensor_affine, torch.per_tensor_symmetric):
        return QTensor(x.int_repr(), x.q_scale(), x.q_zero_point())
    return QTensor(
        x.int_repr(),
        x.q_per_channel_scales(),
        x.q_per_channel_zero_points(),
        x.q_per_channel_axis(),
    )
