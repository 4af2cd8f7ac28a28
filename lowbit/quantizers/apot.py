import functools
import itertools

import torch
from torch import Tensor, nn

from lowbit.functional.sign import sign
from lowbit.quantizers._base import Quantizer
from lowbit.quantizers._check import bit_width, number
from lowbit.quantizers._registry import register
from lowbit.quantizers._scale import standardise, wide
from lowbit.quantizers._straight_through import closed_clamp, straight_through

SMALLEST_ALPHA = 1e-5


def magnitudes(bits: int, additive: bool) -> tuple[float, ...]:
    """The 2^bits levels in [0, 1], ascending: sums of powers of two, over the largest sum.

    Additive: each term is 0 or one of three powers, two bits of the code; an odd bit adds a term
    of one power. Else: 0 and 2^bits - 1 successive powers.

    >>> magnitudes(2, True)
    (0.0, 0.25, 0.5, 1.0)
    >>> magnitudes(3, True)
    (0.0, 0.1, 0.2, 0.3, 0.4, 0.6, 0.8, 1.0)
    """
    if not additive:
        return (0.0, *(2.0**-i for i in reversed(range(2**bits - 1))))
    # The powers are dealt to the terms in turn, and the odd term gets the third round's first.
    count = bits // 2
    terms: list[list[float]] = [[0.0] for _ in range(count + bits % 2)]
    deal = [*range(count)] * 2 + ([count] if bits % 2 else []) + [*range(count)]
    for exponent, term in enumerate(deal, start=1):
        terms[term].append(2.0**-exponent)
    sums = sorted(sum(chosen) for chosen in itertools.product(*terms))
    return tuple(value / sums[-1] for value in sums)


@functools.cache
def levels_on(levels: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    with torch.inference_mode(False):
        return torch.tensor(levels, dtype=dtype, device=device)


@register("apot")
class Apot(Quantizer):
    """Levels that are sums of powers of two, times a learned clip alpha.

    value  alpha p(clip(u / alpha, -1, 1)), with p the nearest level (the smaller of two as near)
           and u = (w - mean) / deviation over the layer; unsigned: alpha p(clip(x / alpha, 0, 1))
    slope  1 / deviation; unsigned: 1 if 0 <= x <= alpha else 0

    The weights' mean and deviation are held constant. The gradient of ``alpha`` is the sum of
    gradient * {s(u) if |u| > alpha, else p - u / alpha}.

    Arguments: ``bits`` (2 … 8); ``signed``: True for weights (a sign and bits - 1 bits of
    magnitude), False for inputs after a ReLU; ``additive``: False gives plain powers of two;
    ``alpha_init``, the first alpha (``None``: 3 where signed, else 8).

    Source: APoT, Li et al. 2020; ``quant_layer.py`` of yhhhli/APoT_Quantization.
    """

    def __init__(
        self,
        bits: int = 4,
        signed: bool = True,
        additive: bool = True,
        alpha_init: float | None = None,
    ) -> None:
        super().__init__()
        bit_width("apot", bits, 2, 8)
        if alpha_init is not None:
            number("apot", "alpha_init", alpha_init, 0, open_=True)
        self.bits = bits
        self.signed = signed
        self.additive = additive
        self.alpha_init = alpha_init
        default = 3.0 if signed else 8.0
        self.alpha = nn.Parameter(torch.tensor([default if alpha_init is None else alpha_init]))
        self.magnitudes = magnitudes(bits - 1 if signed else bits, additive)

    def _prepared(self, x: Tensor) -> tuple[Tensor, Tensor | float]:
        """What is quantized, and its derivative."""
        y = wide(x)
        if not self.signed:
            return y, 1.0
        held, inverse = standardise(y.detach(), tuple(range(y.ndim)))
        return straight_through(held, y * inverse), inverse

    def _levels(self, u: Tensor) -> Tensor:
        """``magnitudes`` where u is: a CUDA graph captures no copy from the processor."""
        traced = torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active()
        if u.is_cuda and type(u) is Tensor and not traced:
            return levels_on(self.magnitudes, u.dtype, u.device)
        return torch.tensor(self.magnitudes, dtype=u.dtype, device=u.device)

    def _projected(self, u: Tensor, alpha: Tensor) -> Tensor:
        """The nearest level of clip(u / alpha)."""
        ratio = (u / alpha).clamp(-1 if self.signed else 0, 1)
        levels = self._levels(u)
        middles = (levels[1:] + levels[:-1]) / 2
        # right=False: an edge belongs to the level below it.
        nearest = levels[torch.bucketize(ratio.abs().contiguous(), middles)]
        return (nearest * sign(ratio)) if self.signed else nearest + ratio * 0

    def _alpha(self, u: Tensor) -> Tensor:
        return self.alpha.to(u.dtype).reshape(())

    def forward(self, x: Tensor) -> Tensor:
        u, _ = self._prepared(x)
        learned = self._alpha(u)
        alpha = learned.detach().clamp_min(SMALLEST_ALPHA)
        held = u.detach()
        projected = self._projected(held, alpha)
        ratio = held / alpha
        inside = (ratio >= 0) & (ratio <= 1) if not self.signed else ratio.abs() <= 1
        for_alpha = projected - torch.where(inside, ratio, 0)
        passed = u if self.signed else closed_clamp(u, 0, alpha)
        return straight_through(alpha * projected, passed + for_alpha * learned).to(x.dtype)

    def value(self, x: Tensor) -> Tensor:
        u, _ = self._prepared(x)
        alpha = self._alpha(u).clamp_min(SMALLEST_ALPHA)
        return (alpha * self._projected(u.detach(), alpha)).to(x.dtype)

    def slope(self, x: Tensor) -> Tensor:
        u, derivative = self._prepared(x)
        if self.signed:
            return (torch.ones_like(u) * derivative).to(x.dtype)
        return ((u >= 0) & (u <= self._alpha(u))).to(x.dtype)
