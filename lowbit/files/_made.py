"""Modules as their constructors leave them, and what is different in one."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from lowbit.files._values import Json, NotPlain, to_json

# What every module has; files hold it in other ways, or not at all.
COMMON = frozenset(nn.Module().__dict__)
# Where lowbit.prepare notes what lowbit.convert needs.
NOTES = frozenset(("qconfig", "folded_norms", "not_traced", "adds_alike"))
_ABSENT = object()


def make(cls: type[nn.Module], arguments: dict[str, Any] | None) -> nn.Module:
    """The module that its constructor makes without memory; an empty one where it cannot."""
    if arguments is None:
        module = cls.__new__(cls)
        nn.Module.__init__(module)
        return module
    with torch.device("meta"), _NothingDrawn():
        return cls(**arguments)


class _NothingDrawn(TorchFunctionMode):
    """No random numbers for tensors without memory, for which torch loads its compiler."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if getattr(func, "__name__", "") in ("normal_", "uniform_", "bernoulli_"):
            return args[0] if args else kwargs["tensor"]  # torch.nn.init names it
        return func(*args, **(kwargs or {}))


def arguments_of(module: nn.Module) -> dict[str, Any] | None:
    """Plain values to construct such a module with: its attributes of the arguments' names.

    None where the constructor needs something else.
    """
    cls = type(module)
    arguments = {}
    for name, parameter in _parameters(cls).items():
        value = getattr(module, name, _ABSENT)
        if name not in ("device", "dtype") and _is_plain(value) and value is not parameter.default:
            arguments[name] = value
        elif parameter.default is parameter.empty:
            return None
    try:
        make(cls, arguments)
    except Exception:  # whatever a constructor says to values that are not what it takes
        return None
    return arguments


def _parameters(cls: type[nn.Module]) -> dict[str, inspect.Parameter]:
    """The constructor's, with those of its bases to which it hands what it does not know."""
    found: dict[str, inspect.Parameter] = {}
    for base in cls.__mro__:
        if "__init__" not in vars(base):
            continue
        own = list(inspect.signature(vars(base)["__init__"]).parameters.values())[1:]
        for parameter in own:
            if parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
                found.setdefault(parameter.name, parameter)
        if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in own):
            break
    return found


def _is_plain(value: Any) -> bool:
    if value is _ABSENT or isinstance(value, Tensor | nn.Module) or inspect.ismethod(value):
        return False
    try:
        to_json(value)
    except NotPlain:
        return False
    return True


def attributes(module: nn.Module) -> dict[str, Any]:
    """What a module has beside tensors and children, as it hands it to copies and pickles."""
    state: Any = module.__getstate__()
    return {
        name: value for name, value in state.items() if name not in COMMON and name not in NOTES
    }


def differences(
    own: dict[str, Any], made: dict[str, Any], encode: Any
) -> tuple[dict[str, Json], list[str]]:
    """Attributes that are not as made, in JSON, and names of those that are made and not there.

    Raises ``NotPlain`` with the attribute's name.
    """
    changed = {}
    for name, value in own.items():
        try:
            written = encode(value)
        except NotPlain as error:
            raise NotPlain(f"its attribute {name} is {error}") from error
        if name not in made or _written(made[name]) != written:
            changed[name] = written
    return changed, [name for name in made if name not in own]


def _written(value: Any) -> Json:
    try:
        return to_json(value)
    except NotPlain:
        return _ABSENT
