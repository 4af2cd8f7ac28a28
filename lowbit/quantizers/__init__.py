"""Quantizers by name: one file per name in this folder, found by scanning it.

>>> get("sign").bits
1
>>> get({"name": "swish_sign", "beta": 10.0})
SwishSign(beta=10.0)
"""

from __future__ import annotations

import copy
import importlib
import pkgutil
from collections.abc import Mapping
from typing import Any, TypeAlias

from lowbit.quantizers._base import Quantizer, SignQuantizer
from lowbit.quantizers._registry import quantizers, register

Spec: TypeAlias = "str | Mapping[str, Any] | Quantizer | type[Quantizer] | None"

for _module in pkgutil.iter_modules(__path__):
    if not _module.name.startswith("_"):
        importlib.import_module(f"{__name__}.{_module.name}")


def get(spec: Spec) -> Quantizer | None:
    """A new quantizer from its spec; ``None`` (full precision) stays ``None``.

    ``"sign"``; ``{"name": "swish_sign", "beta": 5.0}``; a ``Quantizer``, which is copied, so
    that every layer has its own; or a ``Quantizer`` class. An unknown name raises
    ``UnknownNameError`` (a ``ValueError``) with the nearest known one, a wrong argument a
    ``ValueError`` with the arguments there are.
    """
    if spec is None:
        return None
    if isinstance(spec, Quantizer):
        return copy.deepcopy(spec)
    return quantizers.make(spec)


def names() -> tuple[str, ...]:
    """The names of all registered quantizers, sorted, without aliases."""
    return quantizers.names()


__all__ = ["Quantizer", "SignQuantizer", "Spec", "get", "names", "register"]
