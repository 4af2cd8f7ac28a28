"""How a layer is quantized: what makes the observer or fake quantizer of output and weight."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from torch import nn

from lowbit import quantizers
from lowbit.observers import Factory
from lowbit.qconfig._named import ActivationQuantizer, WeightQuantizer


class _Pair(NamedTuple):
    activation: Any
    weight: Any


class QConfig(_Pair):
    """What is called to make the observer, or fake quantizer, of a layer's output and weight.

    ``activation`` and ``weight`` are classes of ``lowbit.observers``, classes with arguments
    (``MinMaxObserver.with_args(…)``), ``torch.nn.Identity`` for none, or names of lowbit's
    quantizers, with arguments as everywhere: ``"lsq"``, ``{"name": "int_k", "bits": 4}``.
    Two of equal parts are equal.

    Raises ValueError for instances, since every layer needs its own, and for unknown names.

    >>> config = QConfig(activation="int_k", weight={"name": "int_k", "bits": 4})
    >>> config.weight().bits
    4
    """

    __slots__ = ()

    def __new__(cls, activation: Any, weight: Any) -> QConfig:
        return super().__new__(
            cls, _maker(activation, ActivationQuantizer), _maker(weight, WeightQuantizer)
        )


def _maker(entry: Any, quantizer_class: type[nn.Module]) -> Any:
    is_class = isinstance(entry, type) and issubclass(entry, quantizers.Quantizer)
    if is_class or isinstance(entry, str | Mapping | quantizers.Quantizer):
        spec = dict(entry) if isinstance(entry, Mapping) else entry
        quantizers.get(spec)  # an unknown name, or a wrong argument, raises here and not later
        return Factory(quantizer_class, {"quantizer": spec})
    if isinstance(entry, nn.Module):
        raise ValueError(
            f"a QConfig takes the class {type(entry).__name__}, not an instance, so that every "
            f"layer gets its own; with arguments: {type(entry).__name__}.with_args(...)"
        )
    if entry is not None and not callable(entry):
        raise ValueError(
            "a QConfig takes observer classes, what with_args returns, or quantizers by name; "
            f"got {type(entry).__name__}: {entry!r}"
        )
    return entry


def qconfig_equals(q1: QConfig | None, q2: QConfig | None) -> bool:
    """Whether two qconfigs, or None, would make the same."""
    return q1 == q2


def activation_is_memoryless(qconfig: QConfig) -> bool:
    """Whether the activations' observer looks at each input alone, as dynamic modules do."""
    made = qconfig.activation()
    observer = getattr(made, "activation_post_process", made)
    return getattr(observer, "averaging_constant", None) == 1
