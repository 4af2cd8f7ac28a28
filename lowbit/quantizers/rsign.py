import torch
from torch import Tensor, nn

from lowbit.functional.stats import over_channel
from lowbit.quantizers._base import SignBased, SignQuantizer
from lowbit.quantizers._check import number
from lowbit.quantizers._registry import register
from lowbit.quantizers.approx_sign import ApproxSign
from lowbit.quantizers.ste_sign import SteSign


@register("rsign")
class RSign(SignBased):
    """Sign after a learned shift of each channel, with the slope of approx_sign or ste_sign.

    value  +1 if x + b_c >= 0 else -1, with b_c the channel's ``shift`` (0 at first)
    slope  2 - 2|x + b_c| if |x + b_c| <= 1 else 0, or 1 if |x + b_c| <= clip else 0

    The gradient of b_c is the sum of gradient * slope over channel c.

    Arguments: ``clip``, where a slope of 1 ends (BNext 1.5; ``None``: the slope is
    approx_sign's); ``sign_zero``: the sign of 0, "plus" (default: +1) or "ternary" (0).

    Source: ReActNet, Liu et al. 2020; ``LearnableBias`` in ``reactnet.py`` of its repository. With
    ``clip``: BNext, Guo et al. 2022.
    """

    made_for = "input"
    levels = (-1.0, 1.0)

    def __init__(self, clip: float | None = None, sign_zero: str = "plus") -> None:
        super().__init__(sign_zero)
        if clip is not None:
            number("rsign", "clip", clip, 0)
        self.clip = clip
        self.shift = nn.Parameter(torch.zeros(1))
        self.estimator: SignQuantizer = (
            ApproxSign(sign_zero=sign_zero) if clip is None else SteSign(clip, sign_zero)
        )

    def bind(self, channels: int, axis: int) -> None:
        super().bind(channels, axis)
        self.shift = nn.Parameter(self.shift.new_zeros(channels))

    def _shifted(self, x: Tensor) -> Tensor:
        return x + over_channel(self.shift.to(x.dtype), x, self.axis)

    def forward(self, x: Tensor) -> Tensor:
        return self.estimator(self._shifted(x))

    def value(self, x: Tensor) -> Tensor:
        return self.estimator.value(self._shifted(x))

    def slope(self, x: Tensor) -> Tensor:
        return self.estimator.slope(self._shifted(x))
