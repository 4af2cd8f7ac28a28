"""The optional package ``onnx``: looked for when something is exported, not before."""

from __future__ import annotations

import importlib
from typing import Any


def onnx_package() -> Any:
    """The module ``onnx``; ModuleNotFoundError with the command that installs it."""
    try:
        return importlib.import_module("onnx")
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "lowbit.export.onnx writes files with the package onnx, which is not installed: "
            'pip install "lowbit[onnx]"',
            name="onnx",
        ) from error
