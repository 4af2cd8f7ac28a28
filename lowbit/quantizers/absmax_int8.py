import torch
from torch import Tensor

from lowbit.quantizers._base import Quantizer
from lowbit.quantizers._check import number
from lowbit.quantizers._registry import register
from lowbit.quantizers._scale import wide


@register("absmax_int8")
class AbsmaxInt8(Quantizer):
    """Each token (last axis) rounded to 8 bits by its largest magnitude.

    value  clip(round(x s), -128, 127) / s, with s = 127 / max(max|x|, eps) over the last axis
    slope  1

    Arguments: ``eps``, the smallest range.

    Source: BitNet b1.58, Ma et al. 2024; ``activation_quant`` of its code notes.
    """

    made_for = "input"
    bits = 8
    slope_reads_input = False

    def __init__(self, eps: float = 1e-5) -> None:
        super().__init__()
        number("absmax_int8", "eps", eps, 0, open_=True)
        self.eps = eps

    def value(self, x: Tensor) -> Tensor:
        if x.numel() == 0:
            return x.clone()
        y = wide(x)
        scale = 127 / y.abs().amax(-1, keepdim=True).clamp_min(self.eps)
        return (torch.round(y * scale).clamp(-128, 127) / scale).to(x.dtype)

    def slope(self, x: Tensor) -> Tensor:
        return x.new_ones(x.shape)
