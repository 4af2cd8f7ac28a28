"""The structure of a model: its graph of modules and functions, by torch.fx."""

from __future__ import annotations

import copy
import inspect
import operator
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn.modules.dropout import _DropoutNd
from torch.nn.utils.parametrize import is_parametrized
from torch.utils import _pytree

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


def _autocasts() -> list[bool]:
    return [torch.is_autocast_enabled(device) for device in ("cpu", "cuda")]


class LeafTracer(fx.Tracer):
    """Modules of torch.nn and lowbit.nn are nodes; those that contain them are followed.

    What a graph would lose without a word ends the trace: hooks of a module that is followed,
    and an operation in an autocast that ``forward`` begins.
    """

    def __init__(self) -> None:
        super().__init__()
        self._autocasts = _autocasts()

    def proxy(self, node: fx.Node) -> fx.Proxy:
        return _Proxy(node, self)

    def create_node(self, *args: Any, **kwargs: Any) -> fx.Node:
        if _autocasts() != self._autocasts:
            raise NotTraceable("forward switches autocast, which a graph does not keep")
        return super().create_node(*args, **kwargs)

    def call_module(self, m: nn.Module, *args: Any, **kwargs: Any) -> Any:
        name = self.path_of_module(m)
        if has_hooks(m) and not self.is_leaf_module(m, name):
            raise NotTraceable(f"{name} has {HOOKS}")
        return super().call_module(m, *args, **kwargs)

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        ours = m.__module__.startswith(("lowbit.nn.", "lowbit.convert."))
        return (
            ours
            or isinstance(m, QuantizedLayer | Quantizer)
            or type(m).__name__ in ("QuantStub", "DeQuantStub")  # torch.ao's as well
            or super().is_leaf_module(m, module_qualified_name)
        )


HOOKS = "hooks or parametrizations, or a forward set on it"


def has_hooks(module: nn.Module) -> bool:
    """Whether a call of the module does more, or something else, than its class's forward."""
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return (
        any(getattr(module, name) for name in hooks)
        or is_parametrized(module)
        or "forward" in vars(module)
    )


def trace(model: nn.Module, example: tuple[Any, ...] | None, *, training: bool = False) -> fx.Graph:
    """The graph of the model's forward, without identities, and without dropout if not training.

    Arguments of forward that have a default are fixed at it, which needs an ``example`` without
    them. Raises ``NotTraceable`` where the graph might not be what the model computes: with an
    ``example``, also where it is not on that (``forward`` may ask whether x is a Tensor).
    """
    if has_hooks(model):
        raise NotTraceable(f"the model has {HOOKS}")
    followed = copy.deepcopy(model)  # forward may write into it
    before = list(_state(followed))
    try:
        fixed = _fixed_arguments(model, example)
        graph = LeafTracer().trace(followed, fixed)
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
    _refuse_writes(before, list(_state(followed)))
    _place_inputs(graph)
    _drop_identities(graph, model, training)
    _refuse_shared_changes(graph, model)
    for node in graph.nodes:
        if node.op == "call_function":
            node.target = _NOT_IN_PLACE.get(node.target, node.target)
    if example is not None and not training:
        _refuse_other_values(graph, model, example)
    return graph


def _state(model: nn.Module) -> Iterator[tuple[str, Any]]:
    """Everything that a forward can write into a model, by name."""
    for name, module in model.named_modules():
        for key, value in vars(module).items():
            path = f"{name}.{key}" if name else key
            inside = dict(enumerate(value)) if isinstance(value, list) else value
            if not isinstance(inside, dict):
                inside = {"": value}
            for item in inside.values():
                counts = isinstance(item, Tensor) and not item.is_inference()
                yield path, (item, item._version if counts else 0)


def _refuse_writes(before: list[tuple[str, Any]], after: list[tuple[str, Any]]) -> None:
    """What forward keeps for its next call would be that of the trace."""
    for (name, (old, version)), (_, (new, now)) in zip(before, after, strict=False):
        if old is not new or version != now:
            raise NotTraceable(f"forward writes to the model ({name})")
    if len(before) != len(after):
        raise NotTraceable("forward writes to the model")


def _refuse_other_values(graph: fx.Graph, model: nn.Module, example: tuple[Any, ...]) -> None:
    """The graph on the example, beside the model itself: copies, with the same random numbers."""

    def called(call: Callable[..., Any]) -> Any:
        with torch.no_grad(), torch.random.fork_rng([]):
            torch.manual_seed(0)
            return call(*copy.deepcopy(example))

    try:
        expected = called(copy.deepcopy(model))
    except Exception as error:  # whatever the model's own code raises
        said = str(error).strip().split("\n")[0]
        raise ValueError(f"example: the model cannot be called with it: {said}") from error
    found = called(fx.Interpreter(copy.deepcopy(model), graph=graph).run)
    leaves, form = _pytree.tree_flatten(expected)
    others, other_form = _pytree.tree_flatten(found)
    if form != other_form or not all(map(_same, leaves, others)):
        raise NotTraceable("on the example, the graph of forward does not give what forward gives")


def _same(a: Any, b: Any) -> bool:
    if not isinstance(a, Tensor) or not isinstance(b, Tensor):
        return type(a) is type(b)
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    return torch.allclose(a, b, equal_nan=True) if a.is_floating_point() else torch.equal(a, b)


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
    in_place = name in ("setitem", "__setitem__") or (
        name.endswith("_") and not name.endswith("__")
    )
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


def _bases(node: fx.Node, model: nn.Module) -> Iterator[fx.Node]:
    """What the node is a view of, and what that is a view of."""
    while _is_view(node, model) and node.args and isinstance(node.args[0], fx.Node):
        node = node.args[0]
        yield node


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
        if source.op == "get_attr":
            raise NotTraceable(f"forward writes to the model ({source.target})")
        others = [user for user in source.users if user is not node]
        shared = any(len(base.users) > 1 for base in _bases(source, model))
        if node.target in _NOT_IN_PLACE:
            shared = shared or any(place[o] > place[node] or _is_view(o, model) for o in others)
        else:
            shared = shared or bool(others)
        if shared:
            raise NotTraceable(f"{node.name} changes in place a value that others read as well")


def read_directly(graph: fx.Graph, model: nn.Module) -> set[nn.Module]:
    """Modules whose parameters, buffers or parts ``forward`` reads or calls by itself."""
    targets = [str(n.target) for n in graph.nodes if n.op in ("get_attr", "call_module")]
    owners: set[str] = set()
    for target in targets:
        parts = target.split(".")[:-1]
        owners |= {".".join(parts[:length]) for length in range(len(parts) + 1)}
    return {model.get_submodule(name) for name in owners}


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
