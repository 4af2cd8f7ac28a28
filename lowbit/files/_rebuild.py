"""From a description to the model."""

from __future__ import annotations

import copy
from typing import Any

from torch import fx, nn

from lowbit.files._classes import GRAPH, class_of
from lowbit.files._errors import PackedFileError
from lowbit.files._graph import NAME, graph_from_json
from lowbit.files._made import make
from lowbit.files._tensors import Read
from lowbit.files._values import Json, from_json


def rebuild(description: Json, tensors: Read, theirs: nn.Module | None) -> nn.Module:
    """The model of a description, with the tensors themselves in it, not copies.

    ``theirs``  a model whose modules stand in where files do not know the class, by name

    Raises ``PackedFileError``.
    """
    return _Rebuilding(tensors, theirs).module(description, "")


class _Rebuilding:
    def __init__(self, tensors: Read, theirs: nn.Module | None) -> None:
        self.tensors = tensors
        self.theirs = theirs
        self.made: dict[str, nn.Module] = {}

    def module(self, parts: Json, name: str) -> nn.Module:
        if "same" in parts:
            return self.made[parts["same"]]
        module = self.made[name] = self._empty(parts, name)
        prefix = f"{name}." if name else ""
        learns = parts.get("learns", ())
        parameters = {
            key: None
            if value is None
            else self.tensors.parameter(value, prefix + key, key in learns)
            for key, value in parts.get("parameters", {}).items()
        }
        buffers = {
            key: None if value is None else self.tensors.tensor(value, prefix + key)
            for key, value in parts.get("buffers", {}).items()
        }
        children = {
            key: None if child is None else self.module(child, prefix + key)
            for key, child in parts.get("children", {}).items()
        }
        state = module.__dict__
        for key in (*parts.get("without", ()), *parameters, *buffers, *children):
            state.pop(key, None)
        state["training"] = parts.get("training", False)
        state["_parameters"], state["_buffers"], state["_modules"] = parameters, buffers, children
        state["_non_persistent_buffers_set"] = set(parts.get("transient", ()))
        other: dict[str, Any] = {"tensor": self.tensors.tensor, "module": self.made.__getitem__}
        for key, value in parts.get("attributes", {}).items():
            state[key] = from_json(value, other)
        if isinstance(module, fx.GraphModule):
            module.graph = graph_from_json(parts["graph"])
            module.graph.lint()
        elif not parts.get("theirs"):
            # What a module makes of its tensors, it makes when it is copied or unpickled.
            module.__setstate__(dict(state))
        return module

    def _empty(self, parts: Json, name: str) -> nn.Module:
        """The module without its tensors and children."""
        if parts.get("theirs"):
            return self._their(parts["class"], name)
        cls = class_of(parts["class"])
        if parts["class"] == GRAPH:
            if not NAME.fullmatch(parts["name"]):
                raise PackedFileError(f"its class is called {parts['name']!r:.60}: it is damaged")
            return fx.GraphModule(nn.Module(), fx.Graph(), parts["name"])
        if cls is None:
            raise PackedFileError(
                f"{name or 'the model'} is a {parts['class']}, a class that this lowbit does not "
                "know: a newer lowbit may have written it, or it is damaged"
            )
        arguments = parts.get("arguments")
        if arguments is not None:
            arguments = {key: from_json(value, {}) for key, value in arguments.items()}
        return make(cls, arguments)

    def _their(self, kind: str, name: str) -> nn.Module:
        """A copy of their module of this name, which shares nothing with it that changes."""
        if self.theirs is None:
            raise PackedFileError(
                f"{name or 'the model'} is a {kind}, neither of torch.nn nor of lowbit, and runs "
                "by its own forward: give load_packed model=, an instance made as that one was"
            )
        found = dict(self.theirs.named_modules(remove_duplicate=False)).get(name)
        cls: type[nn.Module] = type(found) if found is not None else nn.Module
        if found is None or f"{cls.__module__}.{cls.__qualname__}" != kind:
            shown = "nothing" if found is None else f"a {cls.__module__}.{cls.__qualname__}"
            raise PackedFileError(
                f"{name or 'the model'} is a {kind}, and model has {shown} there: give "
                "load_packed an instance made as the model was that was converted"
            )
        module: nn.Module = cls.__new__(cls)
        module.__dict__.update(
            (key, copy.copy(value) if isinstance(value, dict | list | set) else value)
            for key, value in found.__dict__.items()
        )
        return module
