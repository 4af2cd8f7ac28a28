"""The recorded cases, as values: plain tensors, ``QTensor``, numbers, strings, lists."""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lowbit.qtensor import QTensor, plain_dtype

FOLDER = Path(__file__).parent


@dataclass
class Case:
    """One call that was recorded: ``api(**inputs)`` gave ``out``, or was refused with ``error``.

    ``engines`` counts for each of PyTorch's engines how many elements differ from ``out``, or has
    the error with which it refuses the case.
    """

    id: str
    api: str
    inputs: dict[str, Any]
    out: Any = None
    error: dict[str, str] | None = None
    engines: dict[str, dict[str, Any]] = field(default_factory=dict)

    def spread(self) -> int:
        """How many elements PyTorch's engines disagree about."""
        return max((int(engine.get("differ", 0)) for engine in self.engines.values()), default=0)


def cases(api_prefix: str = "", *, exact: bool = False) -> list[Case]:
    """The cases whose api begins with (``exact``: is) ``api_prefix``; a name without any fails."""
    found = [
        case
        for case in _recorded()
        if (case["api"] == api_prefix if exact else case["api"].startswith(api_prefix))
    ]
    assert found, f"no case of {api_prefix!r} is recorded"
    return [
        Case(
            case["id"],
            case["api"],
            build(case["in"]),
            build(case.get("out")),
            case.get("error"),
            case.get("engines", {}),
        )
        for case in found
    ]


def build(value: Any) -> Any:
    """The value that its JSON stands for: {"t"} a tensor, {"q"} a QTensor, others themselves."""
    if isinstance(value, list):
        return [build(item) for item in value]
    if not isinstance(value, dict):
        return value
    if isinstance(value.get("t"), str):
        return array(value["t"])
    if "q" not in value or "dtype" not in value:
        return {key: build(item) for key, item in value.items()}
    values = _leaf(value["q"])
    if "scale" in value:
        dtype = plain_dtype(value["dtype"])
        return QTensor(values.to(dtype), value["scale"], value["zero_point"])
    scales, zero_points = _leaf(value["scales"]), _leaf(value["zero_points"])
    if value["dtype"] == "quint4x2":
        values = nibbles(values.reshape(len(scales), -1))
    return QTensor(values, scales, zero_points, value.get("axis", 0))


def nibbles(packed: torch.Tensor) -> torch.Tensor:
    """Two integers of each byte, the low half first: (n, m) -> (n, 2 m)."""
    return torch.stack([packed & 15, packed >> 4], -1).flatten(-2)


def _leaf(value: Any) -> torch.Tensor:
    return array(value if isinstance(value, str) else value["t"])


def array(key: str) -> torch.Tensor:
    return torch.from_numpy(_arrays()[key].copy())


@functools.cache
def _recorded() -> list[dict[str, Any]]:
    return json.loads((FOLDER / "int8.json").read_text(encoding="utf-8"))["cases"]


@functools.cache
def _arrays() -> dict[str, np.ndarray]:
    with np.load(FOLDER / "int8.npz") as file:
        return {key: file[key] for key in file.files}
