from torch import Tensor

from lowbit.quantizers._base import SignQuantizer
from lowbit.quantizers._registry import register


@register("sign", "ste_identity", "binaryconnect")
class Sign(SignQuantizer):
    """Sign, with the gradient passed straight through.

    value  +1 if x >= 0 else -1
    slope  1

    The clip that papers draw with it is the layer's gradient cancellation.

    Arguments: ``sign_zero``: the sign of 0, "plus" (default: +1) or "ternary" (0).

    Source: BinaryConnect, Courbariaux et al. 2015; ``binarized_modules.py`` of
    itayhubara/BinaryNet.pytorch.
    """

    slope_reads_input = False

    def slope(self, x: Tensor) -> Tensor:
        return x.new_ones(x.shape)
