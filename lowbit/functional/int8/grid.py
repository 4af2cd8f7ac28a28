"""The grid that a tensor of few values lies on: whole multiples of one step."""

from __future__ import annotations

import torch
from torch import Tensor

# Of the largest magnitude: what the arithmetic of float32 leaves.
_TOLERANCE = 1e-6


def step_of(values: Tensor, most: int = 255) -> float | None:
    """The largest step that every value is a whole multiple of; 1 for zeros alone.

    None where that would take multiples beyond ``most``, or the values are not finite.

    >>> step_of(torch.tensor([-0.75, 0.5, 0.0]))
    0.25
    >>> step_of(torch.tensor([0.1, 3.14159])) is None
    True
    """
    magnitudes = torch.unique(values.detach().double().abs())
    if not bool(magnitudes.isfinite().all()):
        return None
    largest = magnitudes[-1].item() if len(magnitudes) else 0.0
    if largest == 0:
        return 1.0
    if len(magnitudes) > most + 1:
        return None
    # If the largest is k steps, the others must be whole numbers of them, too.
    k = torch.arange(1, most + 1, dtype=torch.float64, device=magnitudes.device)
    counts = k[:, None] * (magnitudes / largest)
    whole = ((counts - counts.round()).abs() <= _TOLERANCE * k[:, None]).all(1)
    return largest / (int(whole.nonzero()[0]) + 1) if bool(whole.any()) else None
