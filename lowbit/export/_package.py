"""The optional packages ``onnx`` and ``openvino``: looked for when something is exported."""

from __future__ import annotations

import importlib
from typing import Any


def onnx_package() -> Any:
    """The module ``onnx``; ModuleNotFoundError with the command that installs it."""
    return _optional("onnx", "lowbit.export.onnx", 'pip install "lowbit[onnx]"')


def openvino_package() -> Any:
    """The module ``openvino``; ModuleNotFoundError with the command that installs it."""
    package = _optional("openvino", "lowbit.export.openvino", "pip install openvino")
    importlib.import_module("openvino.frontend.onnx")
    return package


def _optional(name: str, user: str, command: str) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"{user} writes files with the package {name}, which is not installed: {command}",
            name=name,
        ) from error
