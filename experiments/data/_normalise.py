"""From stored pixels to the numbers that a network sees."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

MODES = ("standard", "signed", "unit")


def centre_and_spread(
    mode: str, mean: Sequence[float], std: Sequence[float]
) -> tuple[Sequence[float], Sequence[float]]:
    """What is subtracted from x / max_value, and what the difference is divided by, per channel."""
    if mode not in MODES:
        raise ValueError(f"normalise takes one of {', '.join(MODES)}; got {mode!r}")
    half, zero, one = ([value] * len(mean) for value in (0.5, 0.0, 1.0))
    return {"standard": (mean, std), "signed": (half, half), "unit": (zero, one)}[mode]


class Normalise:
    """uint8 pixels (b, channels, height, width) -> float32, by one multiply-add per channel.

    standard   (x / max_value - mean) / std, with the training set's mean and std per channel
    signed     2 x / max_value - 1, in [-1, 1]
    unit       x / max_value, in [0, 1]
    """

    def __init__(
        self, mode: str, mean: Sequence[float], std: Sequence[float], max_value: int = 255
    ) -> None:
        centre, spread = centre_and_spread(mode, mean, std)
        # Divided in double precision, so that the ends of the range come out as exactly as
        # float32 can say them.
        width = torch.tensor(spread, dtype=torch.float64)
        scale = 1 / (max_value * width)
        shift = -torch.tensor(centre, dtype=torch.float64) / width
        self.scale = scale.float().reshape(1, -1, 1, 1)
        self.shift = shift.float().reshape(1, -1, 1, 1)

    def to(self, device: torch.device) -> Normalise:
        self.scale, self.shift = self.scale.to(device), self.shift.to(device)
        return self

    def center(self, images: Tensor) -> None:
        """Let the mean of these images (n, channels, height, width) come out as 0 everywhere."""
        mean = images.double().mean(0, keepdim=True).cpu()
        self.shift = (-mean * self.scale.double()).float()

    def __call__(self, images: Tensor) -> Tensor:
        return images.to(torch.float32).mul_(self.scale).add_(self.shift)
