"""One page for each public module: the names that it exports, described by their docstrings."""

from __future__ import annotations

import importlib
from types import ModuleType

from docstrings import markdown

MODULES = (
    "lowbit",
    "lowbit.nn",
    "lowbit.nn.packed",
    "lowbit.nn.quantized",
    "lowbit.nn.quantized.functional",
    "lowbit.nn.quantized.dynamic",
    "lowbit.nn.qat",
    "lowbit.models",
    "lowbit.optim",
    "lowbit.quantizers",
    "lowbit.observers",
    "lowbit.qconfig",
    "lowbit.summary",
    "lowbit.files",
    "lowbit.export",
    "lowbit.functional",
)


def path_of(module: str) -> str:
    return f"reference/{module}.md"


def listed() -> list[dict[str, str]]:
    return [{module: path_of(module)} for module in MODULES]


def exported(module: ModuleType) -> list[str]:
    """Its public names that are not modules themselves nor dunders."""
    names = getattr(module, "__all__", None) or [n for n in vars(module) if not n.startswith("_")]
    return [
        name
        for name in names
        if not name.startswith("__") and not isinstance(getattr(module, name), ModuleType)
    ]


def pages() -> dict[str, str]:
    made = {}
    for name in MODULES:
        module = importlib.import_module(name)
        parts = [f"# {name}", markdown(module.__doc__ or "")]
        parts += [f"::: {name}.{public}" for public in exported(module)]
        made[path_of(name)] = "\n\n".join(parts) + "\n"
    return made
