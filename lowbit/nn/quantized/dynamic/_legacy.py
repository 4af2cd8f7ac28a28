"""Weights of torch.ao's dynamic layers, out of their state dicts, while torch can read those."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from lowbit.nn.quantized._objects import held

# What else such a state dict has beside a weight; dynamic layers make no use of it.
_BESIDE = (
    "scale",
    "zero_point",
    "_packed_params.dtype",
    "dtype",
)


def unpacked(state_dict: dict[str, Any], key: str) -> tuple[Any, Tensor | None] | None:
    """(weight, bias) of the weight under ``key``, which is taken out with what belongs to it.

    Linear   <key> a tuple (weight, bias)
    Conv     <key> a quantized tensor, and its bias beside it
    cells    <key> an object of torch's, packed
    LSTM     <key>#0 and <key>#1, the input's and the state's matrix of one packed object

    None where there is no such key; what torch's layers save beside a weight is taken out then
    too, as converted state dicts have it still.
    """
    key, _, part = key.partition("#")
    found = state_dict.get(key)
    prefix = key.removesuffix("weight").removesuffix("_packed_params._packed_params")
    if found is None or (isinstance(found, Tensor) and not getattr(found, "is_quantized", False)):
        if prefix != key:
            _drop_beside(state_dict, prefix)
        return None
    if isinstance(found, Tensor):
        bias = state_dict.pop(key.removesuffix("weight") + "bias", None)
    elif isinstance(found, tuple):
        found, bias = found
    else:
        found, bias = held(found, int(part) if part else None)
    if not part or part == "1":
        del state_dict[key]
        _drop_beside(state_dict, prefix)
    return found, bias


def _drop_beside(state_dict: dict[str, Any], prefix: str) -> None:
    for name in _BESIDE:
        state_dict.pop(prefix + name, None)
