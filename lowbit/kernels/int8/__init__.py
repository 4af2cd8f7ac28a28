"""Linear layers and convolutions on plain int8 tensors: ``torch.ops.lowbit.qlinear, qconv,
qconv_transpose``, by oneDNN where the processor multiplies int8 exactly, else by their
specification in ``lowbit.functional.int8``.

Activations are uint8 (int8 is flipped to it, exactly), best channels last, as convolutions return
them. Weights are packed at their first use, and kept for as long as the weight itself lives and is
not written to.
"""

from lowbit.kernels.int8._available import available, why_not
from lowbit.kernels.int8._calls import conv, conv_transpose, linear

__all__ = ["available", "conv", "conv_transpose", "linear", "why_not"]
