"""Linear layers and convolutions on plain int8 tensors: ``torch.ops.lowbit.qlinear, qconv,
qconv_transpose``, by oneDNN where the processor multiplies int8 exactly, else by their
specification in ``lowbit.functional.int8``.

Linear layers run in lowbit's own compiled kernels where there are any, and so does what stands
between layers: ``quantize, dequantize, add, mul, cat`` and pooling, ``torch.ops.lowbit.int8_*``.

Activations are uint8 (int8 is flipped to it, exactly), best channels last, as convolutions return
them. Weights are packed at their first use, and kept for as long as the weight itself lives and is
not written to.
"""

from lowbit.kernels.int8._available import available, why_not
from lowbit.kernels.int8._calls import conv, conv_transpose, linear
from lowbit.kernels.int8._glue import (
    adaptive_avg_pool2d,
    add,
    avg_pool2d,
    cat,
    clamp,
    dequantize,
    max_pool2d,
    mul,
    quantize,
    relu,
)

__all__ = [
    "adaptive_avg_pool2d",
    "add",
    "available",
    "avg_pool2d",
    "cat",
    "clamp",
    "conv",
    "conv_transpose",
    "dequantize",
    "linear",
    "max_pool2d",
    "mul",
    "quantize",
    "relu",
    "why_not",
]
