"""From a float layer with a qconfig to the weight of a dynamic one."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import type_before_parametrizations

from lowbit.nn.quantized._observed import quantized_weight
from lowbit.nn.quantized.dynamic._params import weight_dtype
from lowbit.observers.min_max import MinMaxObserver
from lowbit.qtensor import QTensor

# One scale for a weight, and 0 in the middle.
default_observer = functools.partial(
    MinMaxObserver, dtype=torch.int8, qscheme="per_tensor_symmetric"
)


def weight_observer(
    name: str, mod: nn.Module, kinds: Sequence[type[nn.Module]]
) -> Callable[[], Any]:
    """What makes observers of the weights of ``mod``: its qconfig's, or ``default_observer``.

    The latter where the qconfig, or its weight, is None. A layer of quantization-aware training
    has its own, ``weight_fake_quant``. TypeError for a layer of none of the ``kinds``,
    ValueError for one without the attribute ``qconfig``.
    """
    own = getattr(mod, "weight_fake_quant", None)
    if own is not None and isinstance(mod, tuple(kinds)) and not hasattr(mod, "bn"):
        return lambda: own
    if type_before_parametrizations(mod) not in kinds:
        known = ", ".join(kind.__name__ for kind in kinds)
        raise TypeError(f"{name}.from_float takes {known}, not {type(mod).__name__}")
    if not hasattr(mod, "qconfig"):
        raise ValueError(
            f"{name}.from_float: the {type(mod).__name__} has no qconfig, which says how to "
            "quantize its weight; set mod.qconfig = None for 8 bits with one scale"
        )
    qconfig: Any = mod.qconfig
    if qconfig is None or qconfig.weight is None:
        return default_observer
    return qconfig.weight


def observed_dtype(observer: Callable[[], Any]) -> torch.dtype:
    """int8 or float16: what an observer of weights asks for; ValueError for others."""
    return weight_dtype(observer().dtype)


def observed_weight(weight: Tensor, observer: Callable[[], Any]) -> QTensor | Tensor:
    """The weight in int8 with scales by a fresh observer; as it is where that says float16."""
    made = observer()
    if weight_dtype(made.dtype) == torch.float16:
        return weight.detach()
    return quantized_weight(weight, made)
