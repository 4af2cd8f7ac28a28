"""Plain values as JSON: numbers and strings as they are, all else with a word for its kind.

``(1, torch.int8)`` is ``{"tuple": [1, {"dtype": "int8"}]}``. Nothing else can be written, and
reading makes nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import torch

from lowbit.files._errors import PackedFileError
from lowbit.files._functions import function_name, function_of
from lowbit.functional.packed_geometry import Geometry

Json: TypeAlias = Any
Other: TypeAlias = Callable[[Any], Json]

NAMED = {
    "dtype": torch.dtype,
    "memory_format": torch.memory_format,
    "layout": torch.layout,
    "qscheme": torch.qscheme,
}


class NotPlain(Exception):
    """A value that files cannot hold."""


def to_json(value: Any, other: Other | None = None) -> Json:
    """The value as JSON; ``other`` is asked first, and returns None for what it does not know.

    Raises ``NotPlain``.
    """
    special = None if other is None else other(value)
    if special is not None:
        return special
    if value is None or isinstance(value, bool | str):
        return value
    if type(value) is int or (type(value) is float and math.isfinite(value)):
        return value
    if type(value) is float:
        return {"float": str(value)}
    if isinstance(value, Geometry):
        neutral = Geometry(1, 1)._asdict()
        keep = ("channels", "out_channels")
        items = value._asdict().items()
        return {"geometry": {k: v for k, v in items if k in keep or v != neutral[k]}}
    if isinstance(value, list):
        return [to_json(item, other) for item in value]
    if isinstance(value, tuple) and (type(value) in (tuple, torch.Size)):
        kind = "tuple" if type(value) is tuple else "size"
        return {kind: [to_json(item, other) for item in value]}
    if isinstance(value, set | frozenset):
        return {"set": sorted(to_json(item, other) for item in value)}
    if isinstance(value, Mapping):
        return {"dict": [[to_json(k, other), to_json(v, other)] for k, v in value.items()]}
    if isinstance(value, slice):
        parts = (value.start, value.stop, value.step)
        return {"slice": [to_json(part, other) for part in parts]}
    if value is Ellipsis:
        return {"ellipsis": None}
    if isinstance(value, torch.device):
        return {"device": str(value)}
    for kind, cls in NAMED.items():
        if isinstance(value, cls):
            return {kind: str(value).removeprefix("torch.")}
    name = function_name(value) if callable(value) else None
    if name is not None:
        return {"function": name}
    raise NotPlain(f"{value!r:.60} of type {type(value).__name__}")


def from_json(value: Json, other: Mapping[str, Callable[[Any], Any]]) -> Any:
    """The value of its JSON; ``other`` makes those of further kinds."""
    if isinstance(value, list):
        return [from_json(item, other) for item in value]
    if not isinstance(value, dict):
        return value
    if len(value) != 1:
        raise PackedFileError(f"a value in it has not one kind but {sorted(value)}: it is damaged")
    ((kind, content),) = value.items()
    if kind in other:
        return other[kind](content)
    if kind in NAMED:
        found = getattr(torch, content, None)
        if isinstance(found, NAMED[kind]):
            return found
    elif kind == "float":
        return float(content)
    elif kind == "geometry":
        return Geometry(**content)
    elif kind == "dict":
        return {from_json(k, other): from_json(v, other) for k, v in content}
    elif kind in SEQUENCES:
        return SEQUENCES[kind](from_json(item, other) for item in content)
    elif kind == "slice":
        return slice(*(from_json(part, other) for part in content))
    elif kind == "ellipsis":
        return Ellipsis
    elif kind == "device":
        return torch.device(content)
    elif kind == "function" and function_of(content) is not None:
        return function_of(content)
    raise PackedFileError(
        f"it has a value of kind {kind!r}, {content!r:.60}, which this lowbit does not know: "
        "a newer lowbit may have written it, or it is damaged"
    )


SEQUENCES: dict[str, Callable[[Any], Any]] = {"tuple": tuple, "size": torch.Size, "set": set}
