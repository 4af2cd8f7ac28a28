from torch import Tensor

from lowbit.quantizers._base import Quantizer
from lowbit.quantizers._registry import register


@register("identity", "no_op")
class Identity(Quantizer):
    """Nothing: full precision, by a name.

    value  x
    slope  1

    Source: the ``NoOp`` of larq; a network's float twin.
    """

    slope_reads_input = False

    def value(self, x: Tensor) -> Tensor:
        return x

    def slope(self, x: Tensor) -> Tensor:
        return x.new_ones(x.shape)

    def forward(self, x: Tensor) -> Tensor:
        return x
