import math

import torch
from torch import Tensor

from lowbit.quantizers._base import SignBased, inside
from lowbit.quantizers._check import number
from lowbit.quantizers._registry import register


@register("progressive_sign")
class ProgressiveSign(SignBased):
    """A ramp that steepens into a sign as training goes; the sign itself in evaluation.

    value  in training hardtanh(x / max(t, eps)), where t = 1 - T, or final^T, with T = progress;
           in evaluation +1 if x >= 0 else -1
    slope  1 everywhere, or 1 if |x| <= clip else 0

    In training more than two values come out: ``bits`` and ``levels`` say what evaluation
    gives, and ``value_is_sign`` is true in evaluation only.

    Arguments: ``eps``, the least width of the ramp; ``clip``, where the slope ends (``None``:
    nowhere); ``final``, to which a width shrinks that loses the same share in every epoch (BNext: a
    tenth, so 0.9^epochs, with ``eps`` 1e-7; ``None``: it shrinks by the same length);
    ``sign_zero``: the sign of 0, "plus" (default: +1) or "ternary" (0), in evaluation.

    Source: the weights of BNext, Guo et al. 2022, whose ramp is there in evaluation as well, until
    it is narrower than 1e-7.
    """

    levels = (-1.0, 1.0)
    temperature: Tensor

    def __init__(
        self,
        eps: float = 1e-3,
        clip: float | None = None,
        final: float | None = None,
        sign_zero: str = "plus",
    ) -> None:
        super().__init__(sign_zero)
        number("progressive_sign", "eps", eps, 0, 1, open_=True)
        if clip is not None:
            number("progressive_sign", "clip", clip, 0)
        if final is not None:
            number("progressive_sign", "final", final, 0, 1, open_=True)
        self.eps = eps
        self.clip = clip
        self.final = final
        self.slope_reads_input = clip is not None
        self.register_buffer("temperature", torch.tensor(0.0))

    @property
    def value_is_sign(self) -> bool:  # type: ignore[override]
        return not self.training and self.sign_zero == "plus"

    def set_progress(self, fraction: float) -> None:
        self.temperature.fill_(fraction)

    def value(self, x: Tensor) -> Tensor:
        if not self.training:
            return self.signs(x)
        progress = self.temperature
        # By the logarithm: the smallest float32, which the base would become, is 1e-45.
        width = 1 - progress if self.final is None else (progress * math.log(self.final)).exp()
        return (x / width.clamp_min(self.eps).to(x.dtype)).clamp(-1, 1)

    def slope(self, x: Tensor) -> Tensor:
        return x.new_ones(x.shape) if self.clip is None else inside(x, self.clip)
