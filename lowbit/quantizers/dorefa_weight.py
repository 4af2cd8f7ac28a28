import torch
from torch import Tensor

from lowbit.functional.affine import round_ste
from lowbit.functional.sign import sign
from lowbit.quantizers._base import Quantizer
from lowbit.quantizers._check import bit_width, one_of
from lowbit.quantizers._registry import register
from lowbit.quantizers._scale import largest_magnitude, mean_magnitude, wide


@register("dorefa_weight", "weight_dorefa")
class DorefaWeight(Quantizer):
    """Weights squeezed by a tanh and rounded to 2^bits values in [-1, 1].

    value  2 round(n u) / n - 1, with n = 2^bits - 1, u = tanh(w) / (2 m) + 1/2 and
           m = max|tanh(w)|; 1 bit: E|w| s(w), E over the layer
    slope  grad "full" and "stopmax": (1 - tanh(w)^2) / m, with m held; "identity", and 1 bit: 1

    Arguments: ``bits`` (1 … 8; default 1); ``grad``: "full" (default: the gradient goes
    through m too, as in tensorpack), "stopmax" (m held, as in larq) or "identity" (straight
    through everything).

    Source: DoReFa-Net, Zhou et al. 2016; ``dorefa.py`` of tensorpack.
    """

    made_for = "weight"

    def __init__(self, bits: int = 1, grad: str = "full") -> None:
        super().__init__()
        bit_width("dorefa_weight", bits, 1, 8)
        one_of("dorefa_weight", "grad", grad, ("full", "stopmax", "identity"))
        self.bits = bits
        self.grad = grad
        self.steps = 2**bits - 1
        self.slope_reads_input = bits > 1 and grad != "identity"
        if bits > 1:
            self.levels = tuple(2 * i / self.steps - 1 for i in range(2**bits))

    def _squeezed(self, w: Tensor) -> tuple[Tensor, Tensor]:
        """tanh(w), and its largest magnitude (1 where all weights are 0)."""
        squeezed = torch.tanh(w)
        largest = largest_magnitude(squeezed)
        return squeezed, torch.where(largest == 0, 1, largest)

    def forward(self, x: Tensor) -> Tensor:
        if not self.slope_reads_input:
            return super().forward(x)
        squeezed, largest = self._squeezed(wide(x))
        if self.grad == "stopmax":
            largest = largest.detach()
        unit = squeezed / (2 * largest) + 0.5
        return (2 * round_ste(unit * self.steps) / self.steps - 1).to(x.dtype)

    def value(self, x: Tensor) -> Tensor:
        if self.bits == 1:
            return mean_magnitude(x, None) * sign(x)
        squeezed, largest = self._squeezed(wide(x))
        unit = squeezed / (2 * largest) + 0.5
        return (2 * torch.round(unit * self.steps) / self.steps - 1).to(x.dtype)

    def sign_scale(self, x: Tensor) -> Tensor | None:
        return mean_magnitude(x, None) if self.bits == 1 else None

    def slope(self, x: Tensor) -> Tensor:
        if not self.slope_reads_input:
            return x.new_ones(x.shape)
        squeezed, largest = self._squeezed(wide(x))
        return ((1 - squeezed.square()) / largest).to(x.dtype)
