"""What the models share: the nonlinearity before a layer, dropout before a quantized one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from lowbit import quantizers
from lowbit.nn import DPReLU, Maxout, QActivation, QuantizedLayer, RPReLU
from lowbit.quantizers import Spec

# name -> module for so many channels
ACTIVATIONS: dict[str, Callable[[int], nn.Module]] = {
    "identity": lambda channels: nn.Identity(),
    "relu": lambda channels: nn.ReLU(),
    "gelu": lambda channels: nn.GELU(),
    "relu6": lambda channels: nn.ReLU6(),
    "hardtanh": lambda channels: nn.Hardtanh(),
    "prelu": lambda channels: nn.PReLU(channels),
    "rprelu": RPReLU,
    "dprelu": DPReLU,
    "maxout": Maxout,
}


INITIALISATIONS = ("kaiming", "kaiming_in", "kaiming_in_fc", "bireal", "glorot", "torch")


def activation(name: str | None, channels: int, read_by: Spec, real: str = "relu") -> nn.Module:
    """The nonlinearity before a layer whose input quantizer is ``read_by``.

    One of ``ACTIVATIONS`` by name. ``None`` chooses: nothing before a quantizer of one or two
    bits, which is a nonlinearity by itself (and after a ReLU a sign is +1 everywhere); else
    ``real``.
    """
    if name is None:
        quantizer = quantizers.get(read_by)
        name = real if quantizer is None or not quantizer.is_nonlinearity else "identity"
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


def initialise(layer: nn.Module, how: str) -> None:
    """The weights of a convolution or linear layer, by one of ``INITIALISATIONS``.

    ``kaiming``  normal of variance 2 / fan_out      ``glorot``  normal of 2 / (fan_in + fan_out)
    ``bireal``   as ``kaiming``, but uniform in (0, 0.001) in layers with a weight quantizer, as
                 ``HardBinaryConv`` of Bi-Real Net and ReActNet starts
    ``torch``    as torch made them
    ``kaiming_in``  normal of variance 2 / fan_in

    A linear layer is left as torch made it, but by ``kaiming_in_fc``, which is ``kaiming_in`` for
    both kinds.
    """
    assert isinstance(layer.weight, Tensor)
    if isinstance(layer, nn.Linear) and how != "kaiming_in_fc":
        return
    latent = isinstance(layer, QuantizedLayer) and layer.weight_quantization is not None
    if how == "bireal" and latent:
        nn.init.uniform_(layer.weight, 0.0, 1e-3)
    elif how in ("bireal", "kaiming"):
        nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    elif how.startswith("kaiming_in"):
        nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    elif how == "glorot":
        nn.init.xavier_normal_(layer.weight)


def behind_dropout(
    layer: Callable[..., QuantizedLayer],
    channels: int,
    *sizes: Any,
    dropout: float,
    quantization: dict[str, Any],
    **options: Any,
) -> list[nn.Module]:
    """``layer(channels, *sizes)`` on quantized inputs of which a share ``dropout`` is 0.

    Without dropout it is the layer. With dropout the quantizer stands in front as a
    ``QActivation``: inside the layer, it would make a sign of the dropped input, +1. A weight
    quantizer that scales by the real inputs, which the layer then never sees, raises
    ``ValueError``.
    """
    if dropout == 0:
        return [layer(channels, *sizes, **quantization, **options)]
    weights = quantizers.get(quantization["weight_quantization"])
    if weights is not None and weights.act_scale:
        raise ValueError(
            f"weight_quantization={weights} scales by the magnitude of real inputs (act_scale), "
            f"and dropout={dropout} stands between: give dropout=0, or act_scale=False"
        )
    given = dict(quantization)
    quantizer = given.pop("input_quantization")
    threshold = given.pop("gradient_cancellation_threshold")
    made = quantizers.get(quantizer)
    if "pad_value" in given and given["pad_value"] is None and made is not None:
        given["pad_value"] = made.pad_value
    return [
        QActivation(quantizer, threshold, channels=channels),
        nn.Dropout(dropout),
        layer(channels, *sizes, **given, **options),
    ]
