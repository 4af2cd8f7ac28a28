"""Quantized tensors without quantized dtypes: integers, scale and zero point in one object."""

from lowbit.functional.int8.dtypes import plain_dtype
from lowbit.qtensor import _functions, _pytree
from lowbit.qtensor._create import dequantize, quantize_per_channel, quantize_per_tensor
from lowbit.qtensor._qtensor import QTensor
from lowbit.qtensor._torch import from_torch_quantized, to_torch_quantized

__all__ = [
    "QTensor",
    "dequantize",
    "from_torch_quantized",
    "plain_dtype",
    "quantize_per_channel",
    "quantize_per_tensor",
    "to_torch_quantized",
]

_functions.fill()
_pytree.register()
