import torch
from torch import Tensor, nn

from lowbit.functional.affine import round_ste
from lowbit.functional.stats import over_channel
from lowbit.quantizers._base import SignBased
from lowbit.quantizers._initialise import DataInitialised
from lowbit.quantizers._learned_step import scaled_step
from lowbit.quantizers._registry import register
from lowbit.quantizers._scale import wide
from lowbit.quantizers._straight_through import closed_clamp, straight_through

SMALLEST_SCALE = 1e-5


@register("elastic_sign")
class ElasticSign(SignBased, DataInitialised):
    """Sign times a learned scale.

    value  signed: a s(x), unsigned: a clip(round(x / a), 0, 1), with a the ``scale`` of the
           tensor (at least 1e-5)
    slope  signed: 1 if |x / a| <= 1 else 0, unsigned: 1 if 0 <= x / a <= 1 else 0

    The gradient of a is the sum of gradient * s(x) (unsigned: * {0 below, round(x/a) - x/a
    inside, 1 above}), times 1 / sqrt(N) for N elements. The first batch sets a = 2 E|x|
    (unsigned: 4 E|x|).

    Arguments: ``signed``: True for values -a and a, False (after a softmax or ReLU) for 0 and a;
    ``shifted``: add a learned ``shift`` to each channel first (0 at first), as the published
    networks do before their inputs; the default is False;
    ``sign_zero``: the sign of 0, "plus" (default: +1) or "ternary" (0).

    Source: BiT, Liu et al. 2022; ``utils_quant.py`` of facebookresearch/bit.
    """

    made_for = "input"

    def __init__(self, signed: bool = True, shifted: bool = False, sign_zero: str = "plus") -> None:
        if not signed and sign_zero != "plus":
            raise ValueError(
                f"elastic_sign takes no signs where signed=False; leave out sign_zero={sign_zero!r}"
            )
        super().__init__(sign_zero)
        self.signed = signed
        self.shifted = shifted
        self.scale = nn.Parameter(torch.ones(1))
        self.shift = nn.Parameter(torch.zeros(1)) if shifted else None

    def bind(self, channels: int, axis: int) -> None:
        super().bind(channels, axis)
        if self.shift is not None:
            self.shift = nn.Parameter(self.shift.new_zeros(channels))

    def initial(self, x: Tensor) -> dict[str, Tensor]:
        factor = 2 if self.signed else 4
        return {"scale": (factor * x.abs().mean()).clamp_min(SMALLEST_SCALE)}

    def _shifted(self, x: Tensor) -> Tensor:
        x = wide(x)
        return x if self.shift is None else x + over_channel(self.shift.to(x.dtype), x, self.axis)

    def _scale(self, y: Tensor) -> Tensor:
        return scaled_step(self.scale, y, 1).clamp_min(SMALLEST_SCALE).reshape(())

    def forward(self, x: Tensor) -> Tensor:
        self.initialise(x)
        y = self._shifted(x)
        scale = self._scale(y)
        if self.signed:
            held = scale.detach()
            out = straight_through(scale * self.signs(y), closed_clamp(y, -held, held))
        else:
            out = scale * round_ste(closed_clamp(y / scale, 0, 1))
        return out.to(x.dtype)

    def value(self, x: Tensor) -> Tensor:
        y = self._shifted(x)
        scale = self._scale(y)
        codes = self.signs(y) if self.signed else torch.round(torch.clamp(y / scale, 0, 1))
        return (scale * codes).to(x.dtype)

    def slope(self, x: Tensor) -> Tensor:
        y = self._shifted(x)
        ratio = y / self._scale(y)
        low = -1 if self.signed else 0
        return ((ratio >= low) & (ratio <= 1)).to(x.dtype)
