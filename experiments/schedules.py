"""Learning-rate schedules as functions of the epoch, a real number that grows at every step.

Each makes a scheduler to be stepped after every optimizer step. ``warmup`` is in epochs: the
rate rises linearly from one step's share to its full value, and the schedule runs beneath it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR


def _schedule(
    optimizer: Optimizer,
    steps_per_epoch: int,
    warmup: float,
    factor: Callable[[float], float],
) -> LambdaLR:
    if warmup < 0:
        raise ValueError(f"scheduler.warmup is in epochs, at least 0; got {warmup}")
    warm_steps = warmup * steps_per_epoch

    def at(step: int) -> float:
        rising = min(1.0, (step + 1) / warm_steps) if warm_steps > 0 else 1.0
        return rising * factor(step / steps_per_epoch)

    return LambdaLR(optimizer, at)


def cosine(
    optimizer: Optimizer,
    steps_per_epoch: int,
    epochs: int,
    warmup: float = 0.0,
    final: float = 0.0,
) -> LambdaLR:
    """final + (1 - final) (1 + cos(pi e / epochs)) / 2, of the rate, at epoch e."""

    def factor(epoch: float) -> float:
        done = min(epoch / epochs, 1.0)
        return final + (1 - final) * (1 + math.cos(math.pi * done)) / 2

    return _schedule(optimizer, steps_per_epoch, warmup, factor)


def linear(
    optimizer: Optimizer,
    steps_per_epoch: int,
    epochs: int,
    warmup: float = 0.0,
    final: float = 0.0,
) -> LambdaLR:
    """1 - (1 - final) e / epochs, of the rate, at epoch e."""
    return _schedule(
        optimizer,
        steps_per_epoch,
        warmup,
        lambda epoch: 1 - (1 - final) * min(epoch / epochs, 1.0),
    )


def step(
    optimizer: Optimizer,
    steps_per_epoch: int,
    every: int,
    gamma: float = 0.1,
    warmup: float = 0.0,
) -> LambdaLR:
    """gamma^floor(e / every), of the rate, at epoch e."""
    return _schedule(optimizer, steps_per_epoch, warmup, lambda epoch: gamma ** (epoch // every))


def multistep(
    optimizer: Optimizer,
    steps_per_epoch: int,
    milestones: Sequence[int],
    gamma: float = 0.1,
    warmup: float = 0.0,
) -> LambdaLR:
    """gamma^(how many milestones are at or before e), of the rate, at epoch e."""
    return _schedule(
        optimizer,
        steps_per_epoch,
        warmup,
        lambda epoch: gamma ** sum(milestone <= epoch for milestone in milestones),
    )
