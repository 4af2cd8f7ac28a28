"""Random numbers that are a function of where they are used, not of what ran before."""

from __future__ import annotations

import numpy as np
import torch


def mixed_seed(*numbers: int) -> int:
    """One 32-bit seed from several numbers >= 0, such as (seed, epoch).

    torch's CPU generator keeps the low 32 bits of a seed only, so that arithmetic on the
    numbers (``seed << 32 | epoch``) would lose some of them.
    """
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])


def generator_of(*numbers: int) -> torch.Generator:
    """A CPU generator seeded with ``mixed_seed(*numbers)``.

    The draws of a data loader come from the CPU wherever the images lie, so that a run has
    the same batches on every device.
    """
    return torch.Generator().manual_seed(mixed_seed(*numbers))
