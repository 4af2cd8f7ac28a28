from torch import Tensor

from lowbit.quantizers._base import Quantizer
from lowbit.quantizers._check import number, one_of
from lowbit.quantizers._registry import register
from lowbit.quantizers._scale import channel_axes, wide
from lowbit.quantizers._ternary import ternary


@register("twn")
class Twn(Quantizer):
    """Ternary weights: those above a share of the mean magnitude keep their sign.

    value  a {+1 if w > D, -1 if w < -D, else 0}, with D = factor E|w| and a the mean of the
           |w| above D
    slope  1

    Arguments: ``factor`` (default: 0.7; Thinklab-SJTU 0.75); ``granularity``: "layer" (default,
    one D and one a, as the caffe code) or "channel" (of each output channel); ``scale``: True
    (default), or False to leave a out, so that the values are -1, 0 and 1.

    Source: TWN, Li et al. 2016; ``caffe-twns``.
    """

    made_for = "weight"
    bits = 2
    slope_reads_input = False

    def __init__(self, factor: float = 0.7, granularity: str = "layer", scale: bool = True) -> None:
        super().__init__()
        number("twn", "factor", factor, 0)
        one_of("twn", "granularity", granularity, ("layer", "channel"))
        self.factor = factor
        self.granularity = granularity
        self.scale = scale
        if not scale:
            self.levels = (-1.0, 0.0, 1.0)

    def value(self, x: Tensor) -> Tensor:
        w = wide(x)
        axes = channel_axes(w, None if self.granularity == "layer" else self.axis)
        magnitude = w.abs()
        threshold = self.factor * magnitude.mean(axes, keepdim=True)
        codes = ternary(w, threshold)
        if not self.scale:
            return codes.to(x.dtype)
        kept = (magnitude > threshold).to(w.dtype)
        count = kept.sum(axes, keepdim=True).clamp_min(1)
        return (codes * (kept * magnitude).sum(axes, keepdim=True) / count).to(x.dtype)

    def slope(self, x: Tensor) -> Tensor:
        return x.new_ones(x.shape)
