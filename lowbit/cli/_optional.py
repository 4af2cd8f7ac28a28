"""Packages that lowbit runs without: what each is for, and the command that installs it."""

from __future__ import annotations

import importlib
import importlib.util
from importlib import metadata
from typing import Any, NamedTuple

from lowbit.cli._errors import UserError


class Optional(NamedTuple):
    """A package by the name that pip knows, the one that Python imports, and its use."""

    name: str
    module: str
    use: str


PACKAGES = (
    Optional("rich", "rich", "tables in colour on a terminal"),
    Optional("matplotlib", "matplotlib", "plots of quantizers: lowbit quantizers NAME --plot FILE"),
    Optional("pillow", "PIL", "pictures: lowbit predict, lowbit convert --calibrate"),
    Optional("onnx", "onnx", "lowbit.export.onnx"),
    Optional("onnxruntime", "onnxruntime", "running exported ONNX files"),
    Optional("openvino", "openvino", "running exported files on OpenVINO"),
    Optional("pytorch-lightning", "pytorch_lightning", "in a clone: python -m experiments.train"),
    Optional("hydra-core", "hydra", "its configurations"),
    Optional("torchvision", "torchvision", "its data sets and teachers"),
)


def package(name: str, use: str) -> Any:
    """The module of an optional package; a ``UserError`` with the command that installs it.

    ``use`` is what asked for it, as the subject of the message.
    """
    entry = next(entry for entry in PACKAGES if entry.name == name)
    try:
        return importlib.import_module(entry.module)
    except ImportError as error:
        raise UserError(
            f"{use} needs the package {name}, which is not installed: pip install {name}"
        ) from error


def installed(module: str) -> bool:
    """Whether a module can be imported, without importing it."""
    return importlib.util.find_spec(module) is not None


def version(entry: Optional) -> str | None:
    """The version of a package; None where it is not installed."""
    if not installed(entry.module):
        return None
    try:
        return metadata.version(entry.name)
    except metadata.PackageNotFoundError:
        return "unknown"
