"""State dicts of torch.ao's quantized modules, as plain tensors.

Their quantized tensors can be read only by a torch that still has them: convert and save
checkpoints before it loses them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from lowbit.functional.int8.embedding import pack_rows
from lowbit.qtensor import QTensor, from_torch_quantized

# The module inside a layer that holds its weight, and what that calls it.
_PACKED = "_packed_params."


def from_legacy_state_dict(state_dict: Mapping[str, Any]) -> dict[str, Any]:
    """The state dict of a model of torch.ao.nn.quantized modules as that of ours.

    Weights become ``weight`` (integers), ``weight_scale``, ``weight_zero_point``; a bias of
    None has no entry; scales and zero points of outputs and every other entry stay. All that
    comes out loads with ``weights_only=True``, and can be saved by safetensors.

    Raises TypeError for weights in float16, and for packed ones that hide their integers, as
    those of LSTM and cells do.
    """
    modules: dict[str, dict[str, Any]] = {}
    for key, value in state_dict.items():
        prefix, dot, name = key.rpartition(_PACKED)
        if not dot:
            prefix, dot, name = key.rpartition(".")
            prefix += dot
        else:
            name = _PACKED + name
        modules.setdefault(prefix, {})[name] = value
    plain = {}
    for prefix, entries in modules.items():
        for name, value in plain_entries(entries).items():
            if not isinstance(value, (Tensor, int, float, str)):
                raise TypeError(
                    f"{prefix + name} is a {type(value).__name__}, which is not a plain tensor; "
                    "load it into the module of torch.ao that saved it, and convert that"
                )
            plain[prefix + name] = value
    return plain


def plain_entries(entries: Mapping[str, Any]) -> dict[str, Any]:
    """The state of one module, without its prefix, with plain tensors; plain ones stay."""
    plain = dict(entries)
    if _PACKED + "_packed_weight" in plain:
        plain.pop(_PACKED + "dtype", None)
        rows = _embedding(plain.pop(_PACKED + "_packed_weight"))
        return plain | rows
    if _PACKED + "_packed_params" in plain:
        plain["weight"], plain["bias"] = plain.pop(_PACKED + "_packed_params")
    elif _PACKED + "weight" in plain:  # versions 1 and 2
        plain["weight"] = plain.pop(_PACKED + "weight")
        plain["bias"] = plain.pop(_PACKED + "bias")
    dtype = plain.pop(_PACKED + "dtype", None)
    if dtype == torch.float16:
        raise TypeError("a weight in float16 is not an integer one: load it into nn.Linear")
    weight = plain.get("weight")
    if isinstance(weight, Tensor) and getattr(weight, "is_quantized", False):
        weight = from_torch_quantized(weight)
    if isinstance(weight, QTensor):
        plain["weight"] = weight.values
        if weight.axis is None:
            plain["weight_scale"] = torch.tensor(weight.scale, dtype=torch.float64)
            plain["weight_zero_point"] = torch.tensor(weight.zero_point, dtype=torch.int64)
        else:
            plain["weight_scale"] = weight.scale
            plain["weight_zero_point"] = weight.zero_point
    if "bias" in plain and plain["bias"] is None:
        del plain["bias"]
    return plain


def _embedding(weight: Tensor) -> dict[str, Tensor]:
    """The rows of an embedding: 8 bits, or two numbers in a byte, the first in its lower half."""
    bits = 4 if str(weight.dtype) == "torch.quint4x2" else 8
    codes = weight.int_repr()
    if bits == 4:
        packed = codes.reshape(weight.shape[0], -1)
        codes = torch.stack([packed & 15, packed >> 4], -1).flatten(1)
    scales = weight.q_per_channel_scales().float().clone()
    zero_points = weight.q_per_channel_zero_points().float().clone()
    return {
        "weight": pack_rows(codes, scales, zero_points, bits),
        "weight_scale": scales,
        "weight_zero_point": zero_points,
    }
