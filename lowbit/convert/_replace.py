"""Packed layers in place of trained ones."""

from __future__ import annotations

from typing import Any

from torch import fx, nn

from lowbit.convert._trace import HOOKS, has_hooks
from lowbit.convert._worth import slower_than_float
from lowbit.nn import QuantizedLayer
from lowbit.nn.packed import PACKED, TABLES, CannotPack, from_trained


def packed_twin(layer: QuantizedLayer, keep_slower: bool, norm_follows: bool) -> nn.Module:
    """The packed module that computes what ``layer`` does; raises ``CannotPack``.

    ``norm_follows``: a batch norm comes after it, and will be folded into it.
    """
    kind = type(layer)
    if has_hooks(layer):
        raise CannotPack(f"it has {HOOKS}, which would be lost; remove them first")
    known = (*PACKED, *TABLES)
    if kind not in known and isinstance(layer, known):
        raise CannotPack(f"{kind.__name__} is a class of its own, whose forward may be another")
    if not keep_slower:
        _refuse(slower_than_float(layer, norm_follows=norm_follows))
    if kind in TABLES:
        table: Any = TABLES[kind]
        return table.from_trained(layer)
    packed = from_trained(layer)
    if not keep_slower:
        _refuse(slower_than_float(layer, packed.geometry, norm_follows))
    return packed


def _refuse(why: str) -> None:
    if why:
        raise CannotPack(why)


def put(model: nn.Module, old: nn.Module, new: nn.Module) -> None:
    """Replace a module wherever the model holds it."""
    for holder in model.modules():
        for name, child in list(holder._modules.items()):
            if child is old:
                holder._modules[name] = new


def call_layers(model: nn.Module) -> None:
    """Have torch's encoder layers call linear layers that were replaced.

    In inference they hand weights to one kernel for all, which knows float ones alone; without
    this of their conditions they do not.
    """
    for module in model.modules():
        if isinstance(module, nn.TransformerEncoderLayer):
            linears = (module.linear1, module.linear2)
            if any(type(linear) is not nn.Linear for linear in linears):
                module.activation_relu_or_gelu = 0
    for module in model.modules():
        if isinstance(module, nn.TransformerEncoder):
            layers = [m for m in module.layers if isinstance(m, nn.TransformerEncoderLayer)]
            if not all(layer.activation_relu_or_gelu for layer in layers):
                module.use_nested_tensor = False  # those, too, are for that kernel


def added(model: fx.GraphModule, name: str, module: nn.Module) -> str:
    """The name under which a module was added, which is a free one."""
    free = name
    while hasattr(model, free):
        free += "_"
    model.add_submodule(free, module)
    return free
