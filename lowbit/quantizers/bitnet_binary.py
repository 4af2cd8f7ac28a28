from torch import Tensor

from lowbit.functional.sign import sign
from lowbit.quantizers._base import Quantizer
from lowbit.quantizers._registry import register
from lowbit.quantizers._scale import mean_magnitude, wide


@register("bitnet_binary")
class BitnetBinary(Quantizer):
    """Sign of weights less their mean, times their mean magnitude, all per tensor.

    value  E|w| s(w - E w)
    slope  1

    Source: BitNet, Wang et al. 2023; figure 5 of its code notes.
    """

    bits = 1
    slope_reads_input = False

    def value(self, x: Tensor) -> Tensor:
        w = wide(x)
        return (mean_magnitude(w, None) * sign(w - w.mean())).to(x.dtype)

    def slope(self, x: Tensor) -> Tensor:
        return x.new_ones(x.shape)

    def pull(self, gradient: Tensor, x: Tensor) -> Tensor:
        return gradient
