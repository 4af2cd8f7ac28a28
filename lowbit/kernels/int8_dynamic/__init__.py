"""Dynamic int8: ``torch.ops.lowbit.qlinear_dynamic, qconv_dynamic`` and ``qrecurrent_dynamic``.

Linear and recurrent layers are lowbit's own compiled kernels where there are any. Otherwise inputs
are quantized and multiplied by torch's int8 kernels where these are fast and exact on this machine;
elsewhere ``lowbit.functional.int8`` runs, after one warning. The operators hide numbers
that depend on data from torch.compile and torch.export. They have no gradient.
"""

from lowbit.kernels.int8_dynamic._available import available
from lowbit.kernels.int8_dynamic._ops import conv, layer, linear

__all__ = ["available", "conv", "layer", "linear"]
