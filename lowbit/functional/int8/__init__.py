"""Arithmetic on quantized integers: the specification of int8, in plain torch.

Functions take plain integer tensors with their scale and zero point, and return plain integer
tensors. A real number is (integer - zero point) * scale; ``quantize`` says how it is rounded.
"""

from lowbit.functional.int8.dtypes import limits, plain_dtype
from lowbit.functional.int8.quantize import choose_qparams, dequantize, dynamic_qparams, quantize

__all__ = [
    "choose_qparams",
    "dequantize",
    "dynamic_qparams",
    "limits",
    "plain_dtype",
    "quantize",
]
