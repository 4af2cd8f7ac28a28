import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from lowbit.quantizers._base import Quantizer
from lowbit.quantizers._registry import register


@register("hwgq")
class Hwgq(Quantizer):
    """Half-wave Gaussian quantization: the nearest of the centres that suit a rectified Gaussian.

    value  the nearest of ``centres`` if x > 0 (the smaller one of two as near), else 0
    slope  1 if 0 < x <= the largest centre else 0

    The input is to be normalised: it follows a BatchNorm, without a ReLU.

    Arguments: ``centres``, ascending and above 0; n of them take ceil(log2(n + 1)) bits. The
    default is that of 2 bits.

    Source: HWGQ, Cai et al. 2017; ``train_val.prototxt`` and ``quant_layer.cpp`` of its
    repository.
    """

    made_for = "input"
    signed = False

    def __init__(self, centres: Sequence[float] = (0.538, 1.076, 1.614)) -> None:
        super().__init__()
        centres = tuple(float(c) for c in centres)
        if not centres or not all(a < b for a, b in pairwise((0.0, *centres))):
            raise ValueError(
                f"hwgq needs centres above 0 in ascending order, as (0.538, 1.076, 1.614); "
                f"got centres={centres!r}"
            )
        self.centres = centres
        self.levels = (0.0, *centres)
        self.bits = math.ceil(math.log2(len(centres) + 1))

    def value(self, x: Tensor) -> Tensor:
        middles = ((a + b) / 2 for a, b in pairwise(self.centres))
        y = x.clamp(-1, 1) * 0  # 0, or NaN for NaN
        for edge, centre in zip((0.0, *middles), self.centres, strict=True):
            y = torch.where(x > edge, centre, y)
        return y

    def slope(self, x: Tensor) -> Tensor:
        return ((x > 0) & (x <= self.centres[-1])).to(x.dtype)
