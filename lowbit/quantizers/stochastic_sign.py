import torch
from torch import Tensor

from lowbit.functional.sign import heaviside
from lowbit.quantizers._base import SignBased, inside
from lowbit.quantizers._check import number
from lowbit.quantizers._registry import register
from lowbit.quantizers._scale import wide


@register("stochastic_sign")
class StochasticSign(SignBased):
    """Sign drawn at random in training, with probability by a hard sigmoid.

    value  in training +1 with probability clip((x + 1) / 2, 0, 1), else -1;
           in evaluation +1 if x >= 0 else -1
    slope  1 everywhere, or 1 if |x| <= clip else 0

    Arguments: ``clip``, where the slope ends (``None``, the default: nowhere, for networks
    that put a hardtanh or a layer's gradient cancellation before it);
    ``sign_zero``: the sign of 0, "plus" (default: +1) or "ternary" (0), in evaluation.

    Source: BNN, Hubara et al. 2016, eq. 2; ``BinarizedNeurons.lua`` of itayhubara/BinaryNet.
    """

    levels = (-1.0, 1.0)

    def __init__(self, clip: float | None = None, sign_zero: str = "plus") -> None:
        super().__init__(sign_zero)
        if clip is not None:
            number("stochastic_sign", "clip", clip, 0)
        self.clip = clip
        self.slope_reads_input = clip is not None

    @property
    def deterministic(self) -> bool:  # type: ignore[override]
        return not self.training

    @property
    def value_is_sign(self) -> bool:  # type: ignore[override]
        return not self.training and self.sign_zero == "plus"

    def value(self, x: Tensor) -> Tensor:
        if not self.training:
            return self.signs(x)
        x_wide = wide(x)
        # The draw is in [0, 1): never +1 at x = -1, always +1 at x = 1.
        return (2 * heaviside((x_wide + 1) / 2 - torch.rand_like(x_wide)) - 1).to(x.dtype)

    def slope(self, x: Tensor) -> Tensor:
        return x.new_ones(x.shape) if self.clip is None else inside(x, self.clip)
