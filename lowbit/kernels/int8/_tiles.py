"""Weights of linear layers as the compiled kernels take them, made at their first use.

They are found by the plain weight itself, are gone when it is, and are made anew when it has been
written to. (Writing through ``weight.data`` goes unseen here, as it does in autograd.)
"""

from __future__ import annotations

import functools
import weakref

import torch
from torch import Tensor

COMPILED = hasattr(torch.ops.lowbit, "int8_pack")

_kept: dict[int, tuple[weakref.ref[Tensor], int, Tensor | None]] = {}


def tiles(weight: Tensor) -> Tensor | None:
    """What ``torch.ops.lowbit.int8_pack`` makes of an int8 weight (o, k), kept for the next call.

    None where nothing is to be gained: no compiled library, an instruction set that takes weights
    as they lie, a weight made in inference mode, which does not count what is written to it, and
    while a graph is traced, which holds the weight alone.
    """
    found = _kept.get(id(weight))
    if found is not None and found[0]() is weight and found[1] == weight._version:
        return found[2]
    if not COMPILED or torch.compiler.is_compiling() or type(weight) not in _PLAIN:
        return None
    if weight.is_inference() or not weight.is_cpu or not weight.is_contiguous():
        return None
    if weight.ndim != 2 or weight.dtype != torch.int8:
        return None
    key = id(weight)
    with torch.no_grad():
        packed = torch.ops.lowbit.int8_pack.default(weight.detach())
    kept = packed if packed.numel() else None
    _kept[key] = (weakref.ref(weight, functools.partial(_forget, key)), weight._version, kept)
    return kept


# Not subclasses: fake tensors have no numbers.
_PLAIN = (Tensor, torch.nn.Parameter, torch.nn.Buffer)


def _fake_pack(weight: Tensor) -> Tensor:
    # How long tiles are, their instruction set alone knows.
    size = torch.library.get_ctx().new_dynamic_size()
    return weight.new_empty((size,), dtype=torch.uint8)


if COMPILED:
    torch.library.register_fake("lowbit::int8_pack", _fake_pack)


def _forget(key: int, dead: weakref.ref[Tensor]) -> None:
    found = _kept.get(key)
    if found is not None and found[0] is dead:
        del _kept[key]
