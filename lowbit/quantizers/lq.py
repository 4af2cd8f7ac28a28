import torch
import torch.distributed as dist
from torch import Tensor

from lowbit.functional.stats import over_channel
from lowbit.quantizers._base import Quantizer
from lowbit.quantizers._check import bit_width, number
from lowbit.quantizers._registry import register
from lowbit.quantizers._scale import channel_axes, wide
from lowbit.quantizers._straight_through import closed_clamp, straight_through

# The third quartile of a Gaussian, in deviations.
QUARTILE = 0.6745
# Added to B^T B, so that it has an inverse where codes are not used.
RIDGE = 1e-4


@register("lq")
class Lq(Quantizer):
    """Levels that are sums of a learned basis, fitted to the data by least squares.

    value  the nearest of the 2^bits levels b · c, over the codes c in {-1, 1}^bits (signed) or
           {0, 1}^bits; the smaller of two as near
    slope  signed: 1; unsigned: 1 if x <= the largest level else 0

    Signed, each channel has a basis b, unsigned there is one. Every forward in training moves it
    after use: b = momentum b + (1 - momentum) (C^T C)^-1 C^T x, C the codes that x was given.
    It starts from 2^i 0.6745 s / 2^(bits - 1), with s the deviation of the first weights; unsigned
    from 2^i 1.349 / (2^bits - 1).

    Arguments: ``bits`` (1 … 4); ``signed``: True (default) for weights, False for inputs after a
    ReLU; ``momentum`` of the moving average.

    Source: LQ-Nets, Zhang et al. 2018; ``learned_quantization.py`` of microsoft/LQ-Nets, where s
    is sqrt(2 / (kernel area x output channels)), and bases of several GPUs are not averaged.
    """

    basis: Tensor
    started: Tensor
    codes: Tensor

    def __init__(self, bits: int = 2, signed: bool = True, momentum: float = 0.9) -> None:
        super().__init__()
        bit_width("lq", bits, 1, 4)
        number("lq", "momentum", momentum, 0, 1)
        self.bits = bits
        self.signed = signed
        self.momentum = momentum
        powers = 2.0 ** torch.arange(bits)
        start = QUARTILE / 2 ** (bits - 1) if signed else 2 * QUARTILE / (2**bits - 1)
        self.register_buffer("basis", (start * powers)[None])
        self.register_buffer("started", torch.tensor(not signed))
        binary = torch.arange(2**bits)[:, None] // powers % 2
        self.register_buffer("codes", 2 * binary - 1 if signed else binary, persistent=False)

    def bind(self, channels: int, axis: int) -> None:
        super().bind(channels, axis)
        if self.signed:
            self.basis = self.basis[:1].repeat(channels, 1)

    def _axes(self, y: Tensor) -> tuple[int, ...]:
        """The axes of y whose elements share a basis."""
        return channel_axes(y, self.axis if len(self.basis) > 1 else None)

    def _basis(self, y: Tensor) -> Tensor:
        """The basis of each channel, (channels, bits); one in units of the deviation at first."""
        basis = self.basis.to(y.dtype)
        deviation = y.detach().std(correction=0)
        return torch.where(self.started, basis, deviation * basis)

    def _levels(self, basis: Tensor) -> tuple[Tensor, Tensor]:
        """(channels, 2^bits) levels, ascending, and their codes (channels, 2^bits, bits)."""
        codes = self.codes.to(basis.dtype)
        levels, order = (basis[:, None] * codes).sum(-1).sort(-1)
        return levels, codes[order]

    def _steps(self, y: Tensor, levels: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The nearest levels, and where each level but the first is passed."""
        middles = (levels[:, 1:] + levels[:, :-1]) / 2
        value = over_channel(levels[:, 0], y, self.axis) + y.clamp(-1, 1) * 0  # NaN stays NaN
        passed = []
        for index in range(middles.shape[1]):
            above = y > over_channel(middles[:, index], y, self.axis)
            value = torch.where(above, over_channel(levels[:, index + 1], y, self.axis), value)
            passed.append(above)
        return value, passed

    @torch.no_grad()
    def _fit(self, y: Tensor, basis: Tensor, codes: Tensor, passed: list[Tensor]) -> None:
        """Move the basis towards the least squares fit of y by its codes."""
        axes = self._axes(y)
        # Number and sum of the elements at each level or above it, then of those at it.
        whole = [torch.ones_like(y), *(above.to(y.dtype) for above in passed)]
        above = torch.stack(
            [torch.stack([m.sum(axes), (m * y).sum(axes)]).reshape(2, -1) for m in whole], -1
        )
        if not self.signed and dist.is_available() and dist.is_initialized():
            dist.all_reduce(above)
        count, total = above - torch.cat([above[..., 1:], torch.zeros_like(above[..., :1])], -1)
        outer = codes[..., :, None] * codes[..., None, :]
        square = (count[..., None, None] * outer).sum(1)
        square = square + RIDGE * torch.eye(self.bits, dtype=y.dtype, device=y.device)
        right = (total[..., None] * codes).sum(1) + RIDGE * basis
        # Not solve, which waits for the GPU to look for an error; with RIDGE there is none.
        fitted = torch.linalg.solve_ex(square, right).result
        self.basis.copy_(torch.lerp(fitted, basis, self.momentum))
        self.started.fill_(True)

    def forward(self, x: Tensor) -> Tensor:
        if x.numel() == 0:
            return x.clone()
        y = wide(x)
        basis = self._basis(y)
        levels, codes = self._levels(basis)
        value, passed = self._steps(y.detach(), levels)
        through = y if self.signed else closed_clamp(y, -torch.inf, levels[0, -1])
        if self.training:
            self._fit(y.detach(), basis, codes, passed)
        return straight_through(value, through).to(x.dtype)

    def value(self, x: Tensor) -> Tensor:
        if x.numel() == 0:
            return x.clone()
        y = wide(x)
        return self._steps(y, self._levels(self._basis(y))[0])[0].to(x.dtype)

    def slope(self, x: Tensor) -> Tensor:
        if self.signed:
            return torch.ones_like(x)
        y = wide(x)
        return (y <= self._levels(self._basis(y))[0][0, -1]).to(x.dtype)
