"""The graph of a converted model as JSON: a list of its calls."""

from __future__ import annotations

import re
from typing import Any

from torch import fx

from lowbit.files._errors import PackedFileError
from lowbit.files._functions import ATTRIBUTES, function_name, function_of, is_method
from lowbit.files._values import Json, NotPlain, from_json, to_json

# torch.fx writes a program of the names, so these must be names and nothing else.
NAME = re.compile(r"[A-Za-z_]\w*", re.ASCII)
PATH = re.compile(r"\w+(\.\w+)*", re.ASCII)
KINDS = {"placeholder", "get_attr", "call_module", "call_function", "call_method", "output"}


def graph_to_json(graph: fx.Graph) -> Json:
    """(name, kind, target, arguments, keyword arguments) of each node; raises ``NotPlain``."""

    def other(value: Any) -> Json:
        if isinstance(value, fx.Node):
            return {"node": value.name}
        if callable(value):
            raise NotPlain(f"the function {value!r:.60} as an argument")
        return None

    rows = []
    for node in graph.nodes:
        target = node.target
        if node.op == "call_function":
            target = function_name(target)
            if target is None:
                raise NotPlain(f"a call of {node.target!r:.60}, no function of torch on tensors")
        rows.append(
            [node.name, node.op, target, to_json(node.args, other)["tuple"], _kwargs(node, other)]
        )
        _check(rows[-1], NotPlain)
    return rows


def _kwargs(node: fx.Node, other: Any) -> Json:
    return {name: to_json(value, other) for name, value in node.kwargs.items()}


def graph_from_json(rows: Json) -> fx.Graph:
    """The graph of its JSON; ``PackedFileError`` where it names what files may not name."""
    graph = fx.Graph()
    nodes: dict[str, fx.Node] = {}
    other = {"node": nodes.__getitem__, "function": _no_argument}
    for row in rows:
        _check(row, PackedFileError)
        name, kind, target, args, kwargs = row
        called: Any = function_of(target) if kind == "call_function" else target
        nodes[name] = graph.create_node(
            kind,
            called,
            tuple(from_json(arg, other) for arg in args),
            {key: from_json(value, other) for key, value in kwargs.items()},
            name,
        )
    graph.lint()
    return graph


def _no_argument(name: str) -> None:
    raise PackedFileError(f"the function {name!r:.60} is an argument in its graph, which none is")


def _check(row: Json, error: type[Exception]) -> None:
    """Raise ``error`` for a call that could do more than compute."""
    name, kind, target, args, kwargs = row
    pattern = NAME if kind in ("placeholder", "call_method") else PATH
    bad = (
        kind not in KINDS
        or not all(NAME.fullmatch(word) for word in (name, *kwargs))
        or not pattern.fullmatch(target)
        or (kind == "call_function" and function_of(target) is None)
        or (kind == "call_method" and not is_method(target))
        or (target == "getattr" and (len(args) < 2 or args[1] not in ATTRIBUTES))
    )
    if bad:
        raise error(f"a {kind} of {target!r:.60} in its graph, which packed files do not have")
