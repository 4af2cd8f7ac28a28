"""A traced model before it is observed: batch norms folded, activations as modules."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import torch.nn.functional as F
from torch import fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

from lowbit.convert._shapes import Shape
from lowbit.convert._trace import has_hooks, read_directly
from lowbit.convert.int8._layers import WEIGHTED, weighted, why_not

# Functions that are modules as well: (the module's class, names of the arguments after the input).
_AS_MODULES: dict[Any, tuple[type[nn.Module], tuple[str, ...]]] = {
    F.hardswish: (nn.Hardswish, ("inplace",)),
    F.elu: (nn.ELU, ("alpha", "inplace")),
    F.leaky_relu: (nn.LeakyReLU, ("negative_slope", "inplace")),
}


def functions_to_modules(model: fx.GraphModule) -> None:
    """Activations with a scale of their own become modules, which can hold it."""
    for node in list(model.graph.nodes):
        entry = _AS_MODULES.get(node.target) if node.op == "call_function" else None
        if entry is None or not isinstance(node.args[0], fx.Node):
            continue
        kind, names = entry
        given = {**dict(zip(names, node.args[1:], strict=False)), **node.kwargs}
        if any(isinstance(value, fx.Node) for value in given.values()):
            continue
        name = free_name(model, node.name)
        model.add_submodule(name, kind(**given))
        replace_call(model.graph, node, name, (node.args[0],))


def norms_before_pools(model: fx.GraphModule) -> None:
    """A batch norm after a max-pooling moves before it, to where it folds into a layer.

    Where its factors are positive it keeps the order of numbers, and with it the greatest.
    """
    calls = Counter(str(node.target) for node in model.graph.find_nodes(op="call_module"))
    read = read_directly(model.graph, model)
    for node in list(model.graph.find_nodes(op="call_module")):
        name = str(node.target)
        norm: Any = model.get_submodule(name)
        pool, layer = _one_before(node), None
        if pool is not None:
            layer = _one_before(pool)
        if layer is None or pool is None or layer.op != "call_module" or calls[name] != 1:
            continue
        entry = WEIGHTED.get(type(model.get_submodule(str(layer.target))))
        folds = entry is not None and type(norm) is entry.norm and not has_hooks(norm)
        if not folds or not _is_max_pool(pool, model) or norm.weight is None:
            continue
        if norm.running_mean is None or not bool((norm.weight > 0).all()):
            continue
        if norm in read:  # then it does not fold
            continue
        node.replace_all_uses_with(pool)
        model.graph.erase_node(node)
        with model.graph.inserting_after(layer):
            moved = model.graph.call_module(name, (layer,))
        pool.replace_input_with(layer, moved)


def _one_before(node: fx.Node) -> fx.Node | None:
    """The one value that the node reads, if nothing else reads it."""
    source = node.args[0] if node.args else None
    alone = isinstance(source, fx.Node) and list(source.users) == [node]
    return source if isinstance(source, fx.Node) and alone else None


def _is_max_pool(node: fx.Node, model: nn.Module) -> bool:
    if node.op != "call_module":
        return node.target in (F.max_pool1d, F.max_pool2d, F.max_pool3d)
    module = model.get_submodule(str(node.target))
    kinds = (nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d)
    return type(module) in kinds and not has_hooks(module) and not module.return_indices


def fold_norms(
    model: fx.GraphModule,
    shapes: dict[fx.Node, Shape],
    qconfig_of: Callable[[str], Any],
    *,
    training: bool,
) -> None:
    """Batch norms become part of the layer before them, which names them in ``folded_norms``.

    In training, a layer that trains with its norm beside it and folds it later
    (``lowbit.nn.qat``). Only where the norm alone reads the layer, each is called once, ``forward``
    reads no parameter of them by itself, and the layer has a qconfig.
    """
    calls = Counter(str(node.target) for node in model.graph.find_nodes(op="call_module"))
    read = read_directly(model.graph, model)
    for node in list(model.graph.find_nodes(op="call_module")):
        name, users = str(node.target), list(node.users)
        layer = model.get_submodule(name)
        entry = WEIGHTED.get(type(layer))
        alone = len(users) == 1 and users[0].op == "call_module" and users[0].args == (node,)
        if entry is None or not alone or has_hooks(layer) or why_not(layer):
            continue
        norm_name = str(users[0].target)
        norm: Any = model.get_submodule(norm_name)
        once = calls[name] == calls[norm_name] == 1
        if type(norm) is not entry.norm or not once or qconfig_of(name) is None:
            continue
        if has_hooks(norm) or not _folds(layer, norm, shapes.get(node)):
            continue
        if layer in read or norm in read:
            continue
        if training and entry.trained_norm is None:
            continue
        made: Any = _with_norm(layer, norm, qconfig_of(name), training)
        made.folded_norms = [norm_name]  # for the report
        model.set_submodule(name, made)
        users[0].replace_all_uses_with(node)
        model.graph.erase_node(users[0])


def _folds(layer: nn.Module, norm: Any, shape: Shape) -> bool:
    if norm.running_mean is None or norm.weight is None:
        return False
    # After a linear layer a norm works on the features of rows alone.
    return not isinstance(layer, nn.Linear) or (shape is not None and len(shape) == 2)


def _with_norm(layer: Any, norm: Any, qconfig: Any, training: bool) -> nn.Module:
    if training:
        entry = weighted(layer)
        assert entry is not None
        assert entry.trained_norm is not None
        pair = nn.Sequential(layer, norm)
        pair.qconfig = qconfig
        return entry.trained_norm.from_float(pair).train(layer.training)
    layer, norm = layer.eval(), norm.eval()
    if isinstance(layer, nn.Linear):
        return fuse_linear_bn_eval(layer, norm)
    return fuse_conv_bn_eval(layer, norm, transpose=bool(getattr(layer, "transposed", False)))


def free_name(model: fx.GraphModule, name: str) -> str:
    """The name, or one like it that is free."""
    free, number = name, 1
    while hasattr(model, free):
        free, number = f"{name}_{number}", number + 1
    return free


def replace_call(graph: fx.Graph, node: fx.Node, name: str, arguments: Any) -> fx.Node:
    """A call of the module of this name in the node's place."""
    with graph.inserting_before(node):
        call = graph.call_module(name, arguments)
    node.replace_all_uses_with(call)
    graph.erase_node(node)
    return call
