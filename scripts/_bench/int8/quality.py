"""How near an int8 answer is to the float one."""

from __future__ import annotations

import torch
from torch import Tensor

# What lowbit's logits must have, in dB, and what those of any contender must, to be the network's.
CLEAR, LEAST_DB = 43.0, 10.0


def sqnr(ours: Tensor, expected: Tensor) -> float:
    """Signal over quantization noise, in dB: 10 log10(sum y^2 / sum (y - ours)^2)."""
    noise = (expected.double() - ours.double()).square().sum()
    return float(10 * torch.log10(expected.double().square().sum() / noise))


def near(ours: Tensor, expected: Tensor, least: float, name: str) -> float:
    """The SQNR; AssertionError where it is under ``least`` dB or not a number."""
    found = sqnr(ours, expected)
    if not found >= least:
        raise AssertionError(f"{name} is wrong: {found:.1f} dB of its values, under {least}")
    return found


def same_integers(ours: Tensor, expected: Tensor, name: str) -> None:
    """Equal but for 1 at ties, in at most one of a thousand; AssertionError else."""
    apart = (ours.int() - expected.int()).abs()
    if int(apart.max()) > 1 or int((apart > 0).sum()) > max(1, apart.numel() // 1000):
        raise AssertionError(
            f"{name}: {int((apart > 0).sum())} of {apart.numel()} integers differ from the legacy "
            f"engine's, by up to {int(apart.max())}"
        )
