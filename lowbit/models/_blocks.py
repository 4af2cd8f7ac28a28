"""What the models share: which nonlinearity stands before a layer."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from lowbit import quantizers
from lowbit.nn import DPReLU, Maxout, RPReLU
from lowbit.quantizers import Spec

# name -> module for so many channels
ACTIVATIONS: dict[str, Callable[[int], nn.Module]] = {
    "identity": lambda channels: nn.Identity(),
    "relu": lambda channels: nn.ReLU(),
    "hardtanh": lambda channels: nn.Hardtanh(),
    "prelu": lambda channels: nn.PReLU(channels),
    "rprelu": RPReLU,
    "dprelu": DPReLU,
    "maxout": Maxout,
}


def activation(name: str | None, channels: int, read_by: Spec) -> nn.Module:
    """The nonlinearity before a layer whose input quantizer is ``read_by``.

    One of ``ACTIVATIONS`` by name. ``None`` chooses: nothing before a quantizer of one or two
    bits, which is a nonlinearity by itself (and after a ReLU a sign is +1 everywhere); else a
    ReLU.
    """
    if name is None:
        quantizer = quantizers.get(read_by)
        name = "relu" if quantizer is None or quantizer.bits > 2 else "identity"
    if name not in ACTIVATIONS:
        raise ValueError(
            f"no activation named {name!r}; known: {', '.join(ACTIVATIONS)}, or None for the "
            "model's own choice"
        )
    return ACTIVATIONS[name](channels)


def chosen(argument: str, value: str, choices: tuple[str, ...]) -> str:
    """``value``, which must be one of ``choices``."""
    if value not in choices:
        raise ValueError(f"{argument} is one of {', '.join(choices)}; got {value!r}")
    return value
