"""The networks of ``lowbit.models`` by name, and arguments from the command line."""

from __future__ import annotations

import difflib
import inspect
import json
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from lowbit import models
from lowbit.cli._errors import UserError

CONSTANTS = {"None": None, "True": True, "False": False}


def names() -> list[str]:
    """The networks' names, in the order of the alphabet."""
    return sorted(models.__all__, key=str.lower)


def model_class(name: str) -> type[nn.Module]:
    """The class of a name, whose spelling ignores case, ``_`` and ``-``."""
    known = {_key(one): one for one in names()}
    found = known.get(_key(name))
    if found is None:
        near = difflib.get_close_matches(_key(name), known, n=1, cutoff=0.5)
        hint = f"; did you mean {known[near[0]]}?" if near else ";"
        raise UserError(f"no model named {name!r}{hint} known: {', '.join(names())}")
    return getattr(models, found)


def _key(name: str) -> str:
    return name.lower().replace("_", "").replace("-", "")


def make(cls: type[nn.Module], arguments: Mapping[str, Any]) -> nn.Module:
    """An instance; a ``UserError`` for arguments that the class does not take."""
    accepted = inspect.signature(cls).parameters
    for name in arguments:
        if name not in accepted:
            raise UserError(
                f"{cls.__name__} has no argument {name!r}; its arguments: {', '.join(accepted)}"
            )
    try:
        return cls(**arguments)
    except (TypeError, ValueError, RuntimeError) as error:
        given = ", ".join(f"{key}={value!r}" for key, value in arguments.items())
        raise UserError(f"{cls.__name__}({given}): {error}") from error


def default_shape(cls: type[nn.Module], arguments: Mapping[str, Any]) -> tuple[int, ...]:
    """The shape of an input of a network made with these arguments: channels, height, width.

    Networks without ``image_size`` take any: 32 after a stem for such images, else 224.
    """
    parameters = inspect.signature(cls).parameters

    def chosen(name: str, without: Any) -> Any:
        known = parameters[name].default if name in parameters else without
        return arguments.get(name, known)

    small = chosen("stem", "imagenet") == "cifar" or cls in (models.Airbench, models.NIN)
    size = 32 if small else 224
    size = chosen("image_size", size)
    return (chosen("in_channels", 3), size, size)


def count(cls: type[nn.Module]) -> int:
    """Parameters of the network of the default arguments; nothing is drawn for it."""
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in cls().parameters())


def settings(words: Sequence[str]) -> dict[str, Any]:
    """``key=value`` words as arguments: numbers, true, null, lists and mappings as in JSON.

    What is none of these is a string: ``weight_quantization=sign``.
    """
    arguments = {}
    for word in words:
        key, equals, text = word.partition("=")
        if not equals or not key.isidentifier():
            raise UserError(f"--set takes key=value, such as width=32; got {word!r}")
        arguments[key] = _value(text)
    return arguments


def _value(text: str) -> Any:
    if text in CONSTANTS:
        return CONSTANTS[text]
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        if text.startswith(("[", "{")):
            raise UserError(
                f'{text!r} is no list or mapping of JSON, such as \'{{"name": "lsq", "bits": 2}}\''
            ) from None
        return text
