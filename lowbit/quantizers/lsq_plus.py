import torch
from torch import Tensor, nn

from lowbit.functional.affine import round_ste
from lowbit.functional.stats import over_channel
from lowbit.quantizers._learned_step import SMALLEST_STEP, LearnedStep, per_value, scaled_step
from lowbit.quantizers._registry import register
from lowbit.quantizers._scale import wide
from lowbit.quantizers._straight_through import closed_clamp


@register("lsq_plus")
class LsqPlus(LearnedStep):
    """Uniform quantization with a learned step size s and a learned offset b.

    value  s round(clip((x - b) / s, -Qn, Qp)) + b; signed: Qn = 2^(bits-1),
           Qp = 2^(bits-1) - 1; unsigned: Qn = 0, Qp = 2^bits - 1
    slope  1 if -Qn <= (x - b) / s <= Qp else 0

    The gradient of s is that of ``lsq`` at x - b, the gradient of b the sum of the gradients
    outside the range; both times 1 / sqrt(N Qp). The first batch sets, where signed,
    s = max(|mean - 3 deviation|, |mean + 3 deviation|) / 2^(bits-1) and b = 0; else
    s = (max - min) / Qp and b = min.

    Arguments: ``bits`` (2 … 8); ``signed``: True for weights; False for inputs, whose lowest
    value is then b, and below 0 where b is; ``per_channel`` (one s and b for each channel of the
    layer's weight or input).

    Source: LSQ+, Bhalgat et al. 2020; DeadAt0m/LSQ-PyTorch.
    """

    def __init__(self, bits: int = 4, signed: bool = True, per_channel: bool = False) -> None:
        super().__init__(bits, signed, per_channel)
        self.offset = nn.Parameter(torch.zeros(1))

    def bind(self, channels: int, axis: int) -> None:
        super().bind(channels, axis)
        if self.per_channel:
            self.offset = nn.Parameter(self.offset.new_zeros(channels))

    def initial(self, x: Tensor) -> dict[str, Tensor]:
        axes = per_value(x, self.step, self.axis)
        if not self.signed:
            low, high = x.amin(axes), x.amax(axes)
            return {"step": ((high - low) / self.high).clamp_min(SMALLEST_STEP), "offset": low}
        mean = x.mean(axes, keepdim=True)
        count = x.numel() // mean.numel()
        deviation = ((x - mean).square().sum(axes) / max(count - 1, 1)).sqrt()
        reach = mean.abs().reshape(deviation.shape) + 3 * deviation
        step = (reach / 2 ** (self.bits - 1)).clamp_min(SMALLEST_STEP)
        return {"step": step, "offset": torch.zeros_like(step)}

    def _parts(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(x - offset) / step, step and offset."""
        y = wide(x)
        step, offset = (
            over_channel(scaled_step(p, y, self.high), y, self.axis)
            for p in (self.step, self.offset)
        )
        return (y - offset) / step, step, offset

    def forward(self, x: Tensor) -> Tensor:
        self.initialise(x)
        ratio, step, offset = self._parts(x)
        return (step * round_ste(closed_clamp(ratio, self.low, self.high)) + offset).to(x.dtype)

    def value(self, x: Tensor) -> Tensor:
        ratio, step, offset = self._parts(x)
        return (step * torch.round(torch.clamp(ratio, self.low, self.high)) + offset).to(x.dtype)

    def slope(self, x: Tensor) -> Tensor:
        ratio, _, _ = self._parts(x)
        return ((ratio >= self.low) & (ratio <= self.high)).to(x.dtype)
