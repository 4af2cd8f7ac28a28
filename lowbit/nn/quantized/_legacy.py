"""State dicts of torch.ao's quantized modules, as plain tensors.

Their quantized tensors can be read only by a torch that still has them: convert and save
checkpoints before it loses them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from lowbit.functional.int8.embedding import pack_rows
from lowbit.nn.quantized._objects import INPUT, STATE, held, is_object
from lowbit.qtensor import QTensor, from_torch_quantized

# The module inside a layer that holds its weight, and what that calls it.
_PACKED = "_packed_params."
# Recurrent layers and cells: packed objects for each layer and direction, or each matrix.
_LAYER = re.compile(r"(?P<prefix>.*)_all_weight_values\.(?P<number>\d+)\.param")
_CELL = re.compile(r"(?P<prefix>.*)_packed_weight_(?P<side>ih|hh)")
# Modules that torch.ao leaves the scales of out of a state dict, and what they call them.
_UNSAVED = {
    "ELU": ("scale", "zero_point"),
    "Sigmoid": ("output_scale", "output_zero_point"),
    "Softmax": ("scale", "zero_point"),
    "PReLU": ("scale", "zero_point"),
}


def from_legacy_state_dict(
    state_dict: Mapping[str, Any] | nn.Module,
    *,
    bidirectional: Mapping[str, bool] | None = None,
) -> dict[str, Any]:
    """The state dict of a model of torch.ao's quantized modules as that of ours.

    ``state_dict``: of ``torch.ao.nn.quantized``, ``.dynamic`` and ``torch.ao.nn.intrinsic``, or
    the model itself, which knows more: the scales of ELU, Sigmoid, Softmax and PReLU, that torch
    leaves out of a state dict, and the directions of recurrent layers.

    Weights become ``weight`` (integers), ``weight_scale``, ``weight_zero_point``, in recurrent
    layers and cells ``weight_ih_l0``, …; weights in float16 stay that; a bias of None has no
    entry; scales and zero points of outputs and every other entry stay. All that comes out loads
    with ``weights_only=True``, and its tensors can be saved by safetensors.

    ``bidirectional``: for recurrent layers, by name. It follows from the shapes but for two
    matrices with as many inputs as states, where ValueError asks for it. TypeError for entries
    that hide their tensors.
    """
    if isinstance(state_dict, nn.Module):
        known = {
            name: bool(module.bidirectional)
            for name, module in state_dict.named_modules()
            if hasattr(module, "bidirectional")
        }
        unsaved = dict(_unsaved(state_dict))
        state_dict = {**state_dict.state_dict(), **unsaved}
        bidirectional = known | dict(bidirectional or {})
    modules: dict[str, dict[str, Any]] = {}
    layers: dict[str, dict[int, Any]] = {}
    plain: dict[str, Any] = {}
    for key, value in state_dict.items():
        layer, cell = _LAYER.fullmatch(key), _CELL.fullmatch(key)
        if layer and is_object(value):
            layers.setdefault(layer["prefix"], {})[int(layer["number"])] = value
            continue
        if cell and is_object(value):
            plain.update(_matrix(*held(value), cell["prefix"], f"_{cell['side']}"))
            continue
        prefix, dot, name = key.rpartition(_PACKED)
        if not dot:
            prefix, dot, name = key.rpartition(".")
            prefix += dot
        else:
            name = _PACKED + name
        modules.setdefault(prefix, {})[name] = value
    for prefix, objects in layers.items():
        plain.update(_recurrent(prefix, objects, bidirectional or {}))
    for prefix, entries in modules.items():
        for name, value in plain_entries(entries).items():
            if not isinstance(value, (Tensor, int, float, str)):
                raise TypeError(
                    f"{prefix + name} is a {type(value).__name__}, which is not a plain tensor; "
                    "load it into the module of torch.ao that saved it, and convert that"
                )
            plain[prefix + name] = value.detach() if isinstance(value, Tensor) else value
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
        plain["weight"] = _half(plain["weight"])
    for name in ("weight", "slope"):
        value = plain.get(name)
        if isinstance(value, QTensor) or getattr(value, "is_quantized", False):
            plain |= _parts(value, name)
    if "bias" in plain and plain["bias"] is None:
        del plain["bias"]
    return plain


def _parts(weight: Any, name: str) -> dict[str, Tensor]:
    """Integers, scale and zero point of a quantized tensor, as entries named after it."""
    q = weight if isinstance(weight, QTensor) else from_torch_quantized(weight)
    scale, zero_point = q.scale, q.zero_point
    if q.axis is None:
        scale = torch.tensor(scale, dtype=torch.float64)
        zero_point = torch.tensor(zero_point, dtype=torch.int64)
    assert isinstance(scale, Tensor)
    assert isinstance(zero_point, Tensor)
    return {name: q.values, f"{name}_scale": scale, f"{name}_zero_point": zero_point}


def _half(weight: Tensor) -> Tensor:
    """A weight in float16, saturated, as a layer of float16 takes it."""
    limit = torch.finfo(torch.float16).max
    return weight.detach().clamp(-limit, limit).half()


def _matrix(weight: Tensor, bias: Tensor | None, prefix: str, suffix: str) -> dict[str, Tensor]:
    """The entries of one matrix of a recurrent layer or cell: ``weight_ih_l0``, …"""
    name = f"weight{suffix}"
    entries = _parts(weight, name) if weight.is_quantized else {name: _half(weight)}
    if bias is not None:
        entries[f"bias{suffix}"] = bias.detach()
    return {prefix + key: value for key, value in entries.items()}


def _recurrent(
    prefix: str, objects: Mapping[int, Any], bidirectional: Mapping[str, bool]
) -> dict[str, Tensor]:
    """The entries of a recurrent layer, whose objects are numbered layer by layer."""
    pairs = [(held(objects[i], INPUT), held(objects[i], STATE)) for i in sorted(objects)]
    name = prefix.removesuffix(".")
    both = bidirectional.get(name)
    if both is None:
        widths = [(ih[0].shape[1], hh[0].shape[1]) for ih, hh in pairs]
        both = _both_directions(name, widths)
    plain = {}
    for number, (ih, hh) in enumerate(pairs):
        layer, reverse = divmod(number, 2) if both else (number, 0)
        suffix = f"l{layer}" + ("_reverse" if reverse else "")
        plain.update(_matrix(*ih, prefix, f"_ih_{suffix}"))
        plain.update(_matrix(*hh, prefix, f"_hh_{suffix}"))
    return plain


def _both_directions(name: str, widths: list[tuple[int, int]]) -> bool:
    """From the numbers of inputs and of states of each object; ValueError where they do not tell.

    A second layer reads one state, or two side by side; a second direction what the first does.
    """
    if len(widths) % 2:
        return False
    if len(widths) > 2:
        return widths[2][0] == 2 * widths[2][1]
    (first, states), (second, _) = widths
    if first == states == second:
        raise ValueError(
            f"{name or 'the recurrent layer'} has two objects, of {first} inputs and {states} "
            "states: two layers or two directions? give bidirectional={"
            f"{name!r}: True}} or False, or the model in place of its state dict"
        )
    return second == first


def _unsaved(model: nn.Module) -> Iterator[tuple[str, Any]]:
    """What modules of torch.ao know, and do not save."""
    for name, module in model.named_modules():
        attributes = _UNSAVED.get(type(module).__name__)
        if attributes is None or not type(module).__module__.startswith("torch.ao."):
            continue
        dot = "." if name else ""
        for ours, theirs in zip(("scale", "zero_point"), attributes, strict=True):
            yield f"{name}{dot}{ours}", torch.as_tensor(getattr(module, theirs))
        if type(module).__name__ == "PReLU":
            yield f"{name}{dot}slope", module.weight


def _embedding(weight: Tensor) -> dict[str, Tensor]:
    """The rows of an embedding: 8 bits, or 4 or 2 with several in a byte, the first lowest."""
    bits = {"torch.quint4x2": 4, "torch.quint2x4": 2}.get(str(weight.dtype), 8)
    codes = weight.int_repr()
    if bits < 8:
        packed = codes.reshape(weight.shape[0], -1)
        shifts = range(0, 8, bits)
        parts = [(packed >> shift) & (2**bits - 1) for shift in shifts]
        codes = torch.stack(parts, -1).flatten(1)[:, : weight.shape[1]]
    scales = weight.q_per_channel_scales().float().clone()
    zero_points = weight.q_per_channel_zero_points().float().clone()
    return {
        "weight": pack_rows(codes, scales, zero_points, bits),
        "weight_scale": scales,
        "weight_zero_point": zero_points,
    }
