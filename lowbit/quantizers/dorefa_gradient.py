import torch
from torch import Tensor

from lowbit.quantizers._base import Quantizer
from lowbit.quantizers._check import bit_width
from lowbit.quantizers._registry import register
from lowbit.quantizers._scale import sample_axes, wide


@register("dorefa_gradient", "gradient_dorefa")
class DorefaGradient(Quantizer):
    """Gradients rounded at random to 2^bits values in their sample's range.

    value  m (2 round(n clip(g / (2 m) + 1/2 + u / n, 0, 1)) / n - 1), with n = 2^bits - 1 and
           m = max|g| over the sample; u is drawn from [-1/2, 1/2) in training, 0 in evaluation
    slope  1

    For the ``gradient_quantization`` of a layer. The expected value over the draws is g. There is
    no 0 among the values; a sample of zeros stays zeros all the same, and one with an Inf or NaN
    becomes Inf and NaN, so that a scaler of losses sees it.

    Arguments: ``bits`` (1 … 8; default 6, the paper's choice beside 2-bit inputs).

    Source: DoReFa-Net, Zhou et al. 2016, section 2.5; ``dorefa.py`` of tensorpack.
    """

    made_for = "gradient"
    slope_reads_input = False

    def __init__(self, bits: int = 6) -> None:
        super().__init__()
        bit_width("dorefa_gradient", bits, 1, 8)
        self.bits = bits
        self.steps = 2**bits - 1

    @property
    def deterministic(self) -> bool:  # type: ignore[override]
        return not self.training

    def value(self, x: Tensor) -> Tensor:
        if x.numel() == 0:
            return x.clone()
        g = wide(x)
        largest = g.abs().amax(sample_axes(g, self.axis), keepdim=True)
        unit = g / torch.where(largest == 0, 1, largest) / 2 + 0.5
        if self.training:
            unit = unit + (torch.rand_like(unit) - 0.5) / self.steps
        rounded = torch.round(unit.clamp(0, 1) * self.steps) / self.steps
        return (largest * (2 * rounded - 1)).to(x.dtype)

    def slope(self, x: Tensor) -> Tensor:
        return x.new_ones(x.shape)
