"""The structure of a model: its graph of modules and functions, by torch.fx."""

from __future__ import annotations

import inspect
import operator
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn.modules.dropout import _DropoutNd
from torch.nn.utils.parametrize import is_parametrized

from lowbit.nn import QuantizedLayer
from lowbit.quantizers import Quantizer


class NotTraceable(Exception):
    """Why the model's structure cannot be followed."""


class _Proxy(fx.Proxy):
    """A value whose ``x += y`` is seen as what it is: for fx it is ``x = x + y``."""

    def _in_place(self, operation: Any, other: Any) -> fx.Proxy:
        return self.tracer.create_proxy("call_function", operation, (self, other), {})

    def __iadd__(self, other: Any) -> fx.Proxy:
        return self._in_place(operator.iadd, other)

    def __isub__(self, other: Any) -> fx.Proxy:
        return self._in_place(operator.isub, other)

    def __imul__(self, other: Any) -> fx.Proxy:
        return self._in_place(operator.imul, other)

    def __itruediv__(self, other: Any) -> fx.Proxy:
        return self._in_place(operator.itruediv, other)


# What they are where nobody else reads x.
_NOT_IN_PLACE: dict[Any, Any] = {
    operator.iadd: operator.add,
    operator.isub: operator.sub,
    operator.imul: operator.mul,
    operator.itruediv: operator.truediv,
}


class LeafTracer(fx.Tracer):
    """Modules of torch.nn and lowbit.nn are nodes; those that contain them are followed."""

    def proxy(self, node: fx.Node) -> fx.Proxy:
        return _Proxy(node, self)

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        ours = m.__module__.startswith(("lowbit.nn.", "lowbit.convert."))
        return (
            ours
            or isinstance(m, QuantizedLayer | Quantizer)
            or type(m).__name__ in ("QuantStub", "DeQuantStub")  # torch.ao's as well
            or super().is_leaf_module(m, module_qualified_name)
        )


def has_hooks(module: nn.Module) -> bool:
    """Whether a call of the module does more than its forward."""
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return any(getattr(module, name) for name in hooks) or is_parametrized(module)


def trace(model: nn.Module, example: tuple[Any, ...] | None, *, training: bool = False) -> fx.Graph:
    """The graph of the model's forward, without identities, and without dropout if not training.

    Arguments of forward that have a default are fixed at it, which needs an ``example`` without
    them. Raises ``NotTraceable`` where the graph might not be what the model computes.
    """
    try:
        fixed = _fixed_arguments(model, example)
        graph = LeafTracer().trace(model, fixed)
    except NotTraceable:
        raise
    except Exception as error:  # whatever the model's own code raises when given a proxy
        said = str(error).strip().split("\n")[0]
        raise NotTraceable(f"torch.fx cannot follow forward: {type(error).__name__}: {said}") from (
            error
        )
    for node in graph.nodes:
        node.type = None  # torch 2.11 cannot pickle an annotation that is a string
    _refuse_constants(graph, model)
    _place_inputs(graph)
    _drop_identities(graph, model, training)
    _refuse_shared_changes(graph, model)
    for node in graph.nodes:
        if node.op == "call_function":
            node.target = _NOT_IN_PLACE.get(node.target, node.target)
    return graph


def _fixed_arguments(model: nn.Module, example: tuple[Any, ...] | None) -> dict[str, Any] | None:
    """Values of the arguments that the example leaves out."""
    fixed = {}
    for place, (name, parameter) in enumerate(inspect.signature(model.forward).parameters.items()):
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            raise NotTraceable(f"forward takes any number of arguments ({parameter})")
        if parameter.default is parameter.empty or (example and place < len(example)):
            continue
        if example is None:
            raise NotTraceable(
                f"forward has an argument with a default, {name}; give example=, the arguments of "
                "a call, to fix those it leaves out"
            )
        fixed[name] = parameter.default
    return fixed or None


def _refuse_constants(graph: fx.Graph, model: nn.Module) -> None:
    """A tensor that forward makes would be frozen: it may be random, or follow the input."""
    for node in graph.find_nodes(op="get_attr"):
        if "_tensor_constant" in node.target:
            raise NotTraceable("forward makes tensors of its own, which a trace would freeze")


def _place_inputs(graph: fx.Graph) -> None:
    """torch.nn calls the input ``input``, lowbit.nn calls it x; by position it has no name."""
    for node in graph.find_nodes(op="call_module"):
        kwargs = dict(node.kwargs)
        for name in ("input", "x"):
            if not node.args and name in kwargs:
                node.args = (kwargs.pop(name),)
        node.kwargs = kwargs


def _drop_identities(graph: fx.Graph, model: nn.Module, training: bool) -> None:
    kinds = nn.Identity if training else nn.Identity | _DropoutNd
    for node in list(graph.nodes):
        if node.op == "call_module":
            module = model.get_submodule(node.target)
            vanishes = isinstance(module, kinds) and not has_hooks(module)
        else:
            off = node.kwargs.get("training", True) is False
            vanishes = node.target is torch.nn.functional.dropout and off
        if vanishes and len(node.all_input_nodes) == 1:
            node.replace_all_uses_with(node.all_input_nodes[0])
            graph.erase_node(node)


def _changes_its_input(node: fx.Node, model: nn.Module) -> bool:
    if node.op == "call_module":
        return bool(getattr(model.get_submodule(str(node.target)), "inplace", False))
    name = str(getattr(node.target, "__name__", node.target))
    in_place = name.endswith("_") and not name.endswith("__")
    augmented = getattr(node.target, "__module__", "") == "_operator" and name.startswith("i")
    return (
        in_place
        or (augmented and name not in ("is_", "is_not", "index", "inv", "invert"))
        or (node.kwargs.get("inplace") is True)
    )


# What may return the memory that it was given.
_VIEWS = (
    *("view", "reshape", "flatten", "unflatten", "squeeze", "unsqueeze", "permute", "transpose"),
    *("movedim", "t", "contiguous", "expand", "narrow", "select", "chunk", "split", "unbind"),
    *("detach", "getitem", "view_as", "expand_as", "diagonal", "unfold", "swapaxes"),
)
_VIEW_MODULES = (nn.Flatten, nn.Unflatten, nn.Identity, _DropoutNd)


def _is_view(node: fx.Node, model: nn.Module) -> bool:
    if node.op == "call_module":
        return isinstance(model.get_submodule(str(node.target)), _VIEW_MODULES)
    return str(getattr(node.target, "__name__", node.target)) in _VIEWS


def _refuse_shared_changes(graph: fx.Graph, model: nn.Module) -> None:
    """Folding changes which operation reads a value first.

    ``x += branch(x)`` is another matter: it is a sum of its own where all that reads x does so
    before, and nothing is a view of x, nor x of something else that is read.
    """
    place = {node: index for index, node in enumerate(graph.nodes)}
    for node in graph.nodes:
        if not node.op.startswith("call") or not _changes_its_input(node, model):
            continue
        source = node.args[0] if node.args else None
        if not isinstance(source, fx.Node):
            continue
        others = [user for user in source.users if user is not node]
        base = source.args[0] if _is_view(source, model) and source.args else None
        shared = isinstance(base, fx.Node) and len(base.users) > 1
        if node.target in _NOT_IN_PLACE:
            shared = shared or any(place[o] > place[node] or _is_view(o, model) for o in others)
        else:
            shared = shared or bool(others)
        if shared:
            raise NotTraceable(f"{node.name} changes in place a value that others read as well")


def read_directly(graph: fx.Graph) -> set[str]:
    """Names of the modules whose parameters or buffers ``forward`` reads by itself."""
    return {str(node.target).rpartition(".")[0] for node in graph.find_nodes(op="get_attr")}


def example_shapes(model: nn.Module, graph: fx.Graph, example: tuple[Any, ...]) -> dict[Any, Any]:
    """The shape of every tensor of the graph in one call."""
    shapes: dict[fx.Node, tuple[int, ...]] = {}

    class Recorder(fx.Interpreter):
        def run_node(self, n: fx.Node) -> Any:
            value = super().run_node(n)
            if isinstance(value, Tensor):
                shapes[n] = tuple(value.shape)
            return value

    with torch.no_grad():
        Recorder(model, graph=graph).run(*example)
    return shapes
