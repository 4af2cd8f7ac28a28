from torch import Tensor

from lowbit.quantizers._base import SignBased
from lowbit.quantizers._registry import register
from lowbit.quantizers._scale import mean_magnitude, wide


@register("bitnet_binary")
class BitnetBinary(SignBased):
    """Sign of weights less their mean, times their mean magnitude, all per tensor.

    value  E|w| s(w - E w)
    slope  1

    Arguments: ``sign_zero``: the sign of 0, "plus" (default: +1) or "ternary" (0).

    Source: BitNet, Wang et al. 2023; figure 5 of its code notes.
    """

    made_for = "weight"
    slope_reads_input = False

    def value(self, x: Tensor) -> Tensor:
        w = wide(x)
        return (mean_magnitude(w, None) * self.signs(w - w.mean())).to(x.dtype)

    def slope(self, x: Tensor) -> Tensor:
        return x.new_ones(x.shape)
