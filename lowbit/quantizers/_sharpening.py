"""What the sign estimators share whose slope sharpens as training goes."""

import math

import torch
from torch import Tensor

from lowbit.quantizers._base import SignQuantizer


class SharpeningSign(SignQuantizer):
    """Base: the buffer t = 10^(lg t_min + progress (lg t_max - lg t_min)).

    Arguments: ``t_min`` and ``t_max``, t at the start and at the end of the training;
    ``sign_zero``: the sign of 0, "plus" (default: +1) or "ternary" (0).
    """

    t: Tensor

    def __init__(self, t_min: float, t_max: float, sign_zero: str = "plus") -> None:
        super().__init__(sign_zero)
        if not 0 < t_min <= t_max:
            raise ValueError(
                f"{self.name} needs 0 < t_min <= t_max; got t_min={t_min}, t_max={t_max}"
            )
        self.t_min = t_min
        self.t_max = t_max
        self.register_buffer("t", torch.tensor(float(t_min)))

    def set_progress(self, fraction: float) -> None:
        low, high = math.log10(self.t_min), math.log10(self.t_max)
        self.t.fill_(10 ** (low + fraction * (high - low)))
