import torch
from torch import Tensor

from lowbit.quantizers._base import Quantizer
from lowbit.quantizers._check import bit_width
from lowbit.quantizers._registry import register
from lowbit.quantizers._scale import wide


@register("dorefa_input", "input_dorefa", "dorefa_quantizer")
class DorefaInput(Quantizer):
    """Inputs clipped to [0, 1] and rounded to 2^bits values.

    value  round(n clip(x, 0, 1)) / n, with n = 2^bits - 1
    slope  1 if 0 <= x <= 1 else 0

    Arguments: ``bits`` (1 … 8; default 2).

    Source: DoReFa-Net, Zhou et al. 2016; ``dorefa.py`` of tensorpack.
    """

    made_for = "input"
    signed = False

    def __init__(self, bits: int = 2) -> None:
        super().__init__()
        bit_width("dorefa_input", bits, 1, 8)
        self.bits = bits
        self.steps = 2**bits - 1
        self.levels = tuple(i / self.steps for i in range(2**bits))

    def value(self, x: Tensor) -> Tensor:
        return (torch.round(wide(x).clamp(0, 1) * self.steps) / self.steps).to(x.dtype)

    def slope(self, x: Tensor) -> Tensor:
        return ((x >= 0) & (x <= 1)).to(x.dtype)
