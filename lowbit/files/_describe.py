"""From a model to its description: what is needed to build it again, in JSON."""

from __future__ import annotations

from typing import Any

from torch import Tensor, fx, nn

from lowbit.convert._trace import HOOKS, has_hooks
from lowbit.files._classes import GRAPH, name_of
from lowbit.files._errors import PackedFileError
from lowbit.files._graph import graph_to_json
from lowbit.files._made import arguments_of, attributes, differences, make
from lowbit.files._tensors import Written
from lowbit.files._values import Json, NotPlain, to_json

TRANSIENT = "_non_persistent_buffers_set"


def describe(model: nn.Module, tensors: Written) -> Json:
    """The description of a model, whose tensors go to ``tensors``.

    A module is an object with

    ``class``       its name in ``lowbit.files._classes``; ``theirs`` if it has none there
    ``arguments``   of its constructor; without them it is made empty
    ``attributes``  that are not as its constructor leaves them; ``without``: that are not there
    ``graph``       of a torch.fx.GraphModule, and its ``name``
    ``training``    where it is true
    ``parameters``, ``buffers``, ``children``: by name, parameters and buffers as references
    ``learns``      parameters that require a gradient; ``transient``: buffers not in a state dict

    and one that was described before is ``same``: the name that it had then.

    Raises ``PackedFileError`` for what a file cannot hold.
    """
    return _Describing(tensors).module(model, "")


class _Describing:
    def __init__(self, tensors: Written) -> None:
        self.tensors = tensors
        self.names: dict[int, str] = {}

    def module(self, module: nn.Module, name: str) -> Json:
        if id(module) in self.names:
            return {"same": self.names[id(module)]}
        self.names[id(module)] = name
        try:
            if has_hooks(module):
                raise NotPlain(f"it has {HOOKS}, which are code: remove them")
            parts = self._parts(module, name)
            return {k: part for k, part in parts.items() if part != {} or k == "arguments"}
        except NotPlain as error:
            raise PackedFileError(
                f"cannot store {name or 'the model'} ({type(module).__name__}): {error}"
            ) from error

    def _parts(self, module: nn.Module, name: str) -> dict[str, Json]:
        prefix = f"{name}." if name else ""
        kind = name_of(type(module))
        # Ours leave out what they make again; what others do in their own is not known.
        state: dict[str, Any] = module.__dict__ if kind is None else module.__getstate__()
        parts: dict[str, Json] = {"class": kind}
        if kind is None:
            cls = type(module)
            parts = {"class": f"{cls.__module__}.{cls.__qualname__}", "theirs": True}
        if module.training:
            parts["training"] = True
        parts["parameters"] = {
            key: None if value is None else self.tensors.reference(value, prefix + key)
            for key, value in state["_parameters"].items()
        }
        learns = [k for k, p in state["_parameters"].items() if p is not None and p.requires_grad]
        if learns:
            parts["learns"] = learns
        parts["buffers"] = {
            key: None if value is None else self.tensors.reference(value, prefix + key)
            for key, value in state["_buffers"].items()
        }
        transient = [key for key in state["_buffers"] if key in state[TRANSIENT]]
        if transient:
            parts["transient"] = transient
        parts["children"] = {
            key: None if child is None else self.module(child, prefix + key)
            for key, child in state["_modules"].items()
        }
        if isinstance(module, fx.GraphModule) and kind == GRAPH:
            parts["name"] = type(module).__name__
            parts["graph"] = graph_to_json(module.graph)
        elif kind is not None:
            parts |= self._own(module, prefix, state)
        return parts

    def _own(self, module: nn.Module, prefix: str, state: dict[str, Any]) -> dict[str, Json]:
        """Arguments and attributes of a module whose class files know."""

        def other(value: Any) -> Json:
            if isinstance(value, Tensor):
                return {"tensor": self.tensors.reference(value, f"{prefix}tensor", named=True)}
            if isinstance(value, nn.Module) and id(value) in self.names:
                return {"module": self.names[id(value)]}
            return None

        arguments = arguments_of(module)
        held = {**state["_parameters"], **state["_buffers"], **state["_modules"]}
        made = {} if arguments is None else attributes(make(type(module), arguments))
        changed, absent = differences(attributes(module), made, lambda value: to_json(value, other))
        parts: dict[str, Json] = {"attributes": changed}
        if arguments is not None:
            parts["arguments"] = {key: to_json(value) for key, value in arguments.items()}
        absent = [key for key in absent if key not in held]
        return parts | ({"without": absent} if absent else {})
