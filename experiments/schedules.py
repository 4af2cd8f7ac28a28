"""Learning-rate schedules as functions of the epoch, a real number that grows at every step.

Each makes a scheduler to be stepped after every optimizer step, or, with ``steps_per_epoch=1``,
after every epoch. ``warmup`` is in epochs: the rate rises linearly from one step's share to its
full value, and the schedule runs beneath it. ``only`` names the parameter groups that follow it
(``latent`` stands for ``latent, fans 784`` too); the rate of the others stays. None: all follow.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from experiments._numbers import above, at_least


def _schedule(
    optimizer: Optimizer,
    steps_per_epoch: int,
    warmup: float,
    factor: Callable[[float], float],
    only: Sequence[str] | None,
) -> LambdaLR:
    at_least("scheduler.warmup, in epochs,", warmup, 0)
    follows = _following(optimizer, only)
    warm_steps = warmup * steps_per_epoch

    def at(step: int) -> float:
        rising = min(1.0, (step + 1) / warm_steps) if warm_steps > 0 else 1.0
        return rising * factor(step / steps_per_epoch)

    return LambdaLR(optimizer, [at if follow else _constant for follow in follows])


def _constant(step: int) -> float:
    return 1.0


def _following(optimizer: Optimizer, only: Sequence[str] | None) -> list[bool]:
    """Which parameter groups follow a schedule; ``ValueError`` for a name that none has."""
    names = [str(group.get("name", i)) for i, group in enumerate(optimizer.param_groups)]
    if only is None:
        return [True] * len(names)
    if isinstance(only, str):
        raise ValueError(f"scheduler.only is a list of names, as in [{only}]; got {only!r}")
    heads = [name.partition(", ")[0] for name in names]
    for name in only:
        if name not in names and name not in heads:
            raise ValueError(
                f"scheduler.only names {name!r}; the parameter groups are {', '.join(names)}"
            )
    return [name in only or head in only for name, head in zip(names, heads, strict=True)]


def cosine(
    optimizer: Optimizer,
    steps_per_epoch: int,
    epochs: int,
    warmup: float = 0.0,
    final: float = 0.0,
    only: Sequence[str] | None = None,
) -> LambdaLR:
    """final + (1 - final) (1 + cos(pi e / epochs)) / 2, of the rate, at epoch e."""
    above("scheduler.epochs", epochs, 0)
    at_least("scheduler.final", final, 0)

    def factor(epoch: float) -> float:
        done = min(epoch / epochs, 1.0)
        return final + (1 - final) * (1 + math.cos(math.pi * done)) / 2

    return _schedule(optimizer, steps_per_epoch, warmup, factor, only)


def linear(
    optimizer: Optimizer,
    steps_per_epoch: int,
    epochs: int,
    warmup: float = 0.0,
    final: float = 0.0,
    only: Sequence[str] | None = None,
) -> LambdaLR:
    """1 - (1 - final) e / epochs, of the rate, at epoch e."""
    above("scheduler.epochs", epochs, 0)
    at_least("scheduler.final", final, 0)
    return _schedule(
        optimizer,
        steps_per_epoch,
        warmup,
        lambda epoch: 1 - (1 - final) * min(epoch / epochs, 1.0),
        only,
    )


def exponential(
    optimizer: Optimizer,
    steps_per_epoch: int,
    epochs: int,
    final: float,
    warmup: float = 0.0,
    only: Sequence[str] | None = None,
) -> LambdaLR:
    """final^(e / epochs), of the rate, at epoch e."""
    above("scheduler.epochs", epochs, 0)
    above("scheduler.final of an exponential", final, 0)
    return _schedule(
        optimizer,
        steps_per_epoch,
        warmup,
        lambda epoch: final ** min(epoch / epochs, 1.0),
        only,
    )


def inverse(
    optimizer: Optimizer,
    steps_per_epoch: int,
    decay: float,
    warmup: float = 0.0,
    only: Sequence[str] | None = None,
) -> LambdaLR:
    """1 / (1 + decay i), of the rate, at step i: ``decay`` of Keras' optimizers."""
    at_least("scheduler.decay", decay, 0)
    return _schedule(
        optimizer,
        steps_per_epoch,
        warmup,
        lambda epoch: 1 / (1 + decay * epoch * steps_per_epoch),
        only,
    )


def step(
    optimizer: Optimizer,
    steps_per_epoch: int,
    every: int,
    gamma: float = 0.1,
    warmup: float = 0.0,
    only: Sequence[str] | None = None,
) -> LambdaLR:
    """gamma^floor(e / every), of the rate, at epoch e."""
    above("scheduler.every", every, 0)
    at_least("scheduler.gamma", gamma, 0)
    return _schedule(
        optimizer, steps_per_epoch, warmup, lambda epoch: gamma ** (epoch // every), only
    )


def multistep(
    optimizer: Optimizer,
    steps_per_epoch: int,
    milestones: Sequence[int],
    gamma: float | Sequence[float] = 0.1,
    warmup: float = 0.0,
    only: Sequence[str] | None = None,
) -> LambdaLR:
    """The product of the gammas of all milestones at or before e, of the rate, at epoch e.

    ``gamma`` is one number for all, or one for each milestone.
    """
    gammas = [gamma] * len(milestones) if isinstance(gamma, (int, float)) else list(gamma)
    if len(gammas) != len(milestones):
        raise ValueError(
            f"scheduler.gamma is one number, or one for each of the {len(milestones)} milestones; "
            f"got {len(gammas)}"
        )
    for milestone, each in zip(milestones, gammas, strict=True):
        at_least("a milestone of scheduler.milestones", milestone, 0)
        at_least("scheduler.gamma", each, 0)
    pairs = list(zip(milestones, gammas, strict=True))
    return _schedule(
        optimizer,
        steps_per_epoch,
        warmup,
        lambda epoch: math.prod(g for milestone, g in pairs if milestone <= epoch),
        only,
    )
