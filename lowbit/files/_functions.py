"""The functions, methods and attributes that the graph of a packed file may name.

They are those that torch lists as functions of tensors, which compute and do nothing else.
"""

from __future__ import annotations

import builtins
import functools
import math
import operator
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch.overrides import get_overridable_functions

TORCH = {
    "torch": torch,
    "torch.nn.functional": F,
    "torch.linalg": torch.linalg,
    "torch.fft": torch.fft,
    "torch.special": torch.special,
}
# Of numbers, and of tensors through their operators.
OPERATORS = (
    *("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul", "neg", "pos", "abs"),
    *("iadd", "isub", "imul", "itruediv", "eq", "ne", "lt", "le", "gt", "ge"),
    *("and_", "or_", "xor", "invert", "not_", "getitem"),
)
MATH = ("ceil", "floor", "sqrt")
# Through other attributes of Python's objects one comes to everything.
ATTRIBUTES = ("shape", "dtype", "device", "ndim", "layout", "T", "mT", "H", "mH", "real", "imag")


def function_name(function: Any) -> str | None:
    """The name of a function in files; None for one that files do not know."""
    try:
        return _names().get(function)
    except TypeError:  # not hashable
        return None


def function_of(name: str) -> Callable[..., Any] | None:
    """The function of this name; None where files may not name it."""
    return known().get(name)


def is_method(name: str) -> bool:
    """Whether a graph may call the method of this name."""
    return not name.startswith("_") and callable(getattr(torch.Tensor, name, None))


@functools.cache
def known() -> dict[str, Callable[..., Any]]:
    """Every function that a file may name."""
    found: dict[str, Callable[..., Any]] = {"getattr": builtins.getattr}
    found |= {f"operator.{name}": getattr(operator, name) for name in OPERATORS}
    found |= {f"math.{name}": getattr(math, name) for name in MATH}
    listed = {id(function) for group in get_overridable_functions().values() for function in group}
    for prefix, module in TORCH.items():
        for name, function in vars(module).items():
            if not name.startswith("_") and id(function) in listed:
                found.setdefault(f"{prefix}.{name}", function)
    return found


@functools.cache
def _names() -> dict[Callable[..., Any], str]:
    return {function: name for name, function in reversed(known().items())}
