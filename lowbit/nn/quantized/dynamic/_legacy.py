"""Weights of torch.ao's dynamic layers, out of their state dicts, while torch can read those."""

from __future__ import annotations

from typing import Any

from torch import Tensor

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

    None where there is no such key.
    """
    key, _, part = key.partition("#")
    found = state_dict.get(key)
    if isinstance(found, Tensor):
        if not getattr(found, "is_quantized", False):
            return None
        bias = state_dict.pop(key.removesuffix("weight") + "bias", None)
    elif isinstance(found, tuple):
        found, bias = found
    elif found is not None:
        state = found.__getstate__()[0]
        if part:
            # ("quantized_dynamic", biases, …, packed) or ("quantized_fp16", …, packed)
            state = state[-1][int(part)].__getstate__()[0]
        found, bias = state[0], state[1]
    else:
        return None
    if not part or part == "1":
        del state_dict[key]
        prefix = key.removesuffix("weight").removesuffix("_packed_params._packed_params")
        for name in _BESIDE:
            state_dict.pop(prefix + name, None)
    return found, bias
