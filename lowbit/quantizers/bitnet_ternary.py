import torch
from torch import Tensor

from lowbit.quantizers._base import Quantizer
from lowbit.quantizers._check import number
from lowbit.quantizers._registry import register
from lowbit.quantizers._scale import mean_magnitude, wide


@register("bitnet_ternary")
class BitnetTernary(Quantizer):
    """Weights rounded to -1, 0 or 1 times their mean magnitude ("absmean"), per tensor.

    value  a clip(round(w / a), -1, 1), with a = max(E|w|, eps)
    slope  1

    Arguments: ``eps``, the smallest scale.

    Source: BitNet b1.58, Ma et al. 2024; figure 3 of its code notes.
    """

    made_for = "weight"
    bits = 2
    slope_reads_input = False

    def __init__(self, eps: float = 1e-5) -> None:
        super().__init__()
        number("bitnet_ternary", "eps", eps, 0, open_=True)
        self.eps = eps

    def value(self, x: Tensor) -> Tensor:
        w = wide(x)
        scale = mean_magnitude(w, None).clamp_min(self.eps)
        return (scale * torch.round(w / scale).clamp(-1, 1)).to(x.dtype)

    def slope(self, x: Tensor) -> Tensor:
        return x.new_ones(x.shape)
