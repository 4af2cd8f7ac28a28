"""Checkpoints as a training writes them, and commands run in this process."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import nn

from lowbit.cli import main
from lowbit.models import MLP

ARGUMENTS = {
    "image_size": 8,
    "hidden": [128, 128],
    "input_quantization": "sign",
    "weight_quantization": "sign",
}


class Ended(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., Ended]:
    """``run("summary", "LeNet")``: the command's exit code and what it printed."""

    def command(*words: object) -> Ended:
        code = main([str(word) for word in words])
        return Ended(code, *capsys.readouterr())

    return command


@pytest.fixture
def refused(run: Callable[..., Ended]) -> Callable[..., str]:
    """``refused("summary", "LeNt")``: the one message of a command that is used wrongly."""

    def command(*words: object) -> str:
        ended = run(*words)
        assert (ended.code, ended.out) == (2, "")
        assert ended.err.startswith(f"lowbit {words[0]}: ")
        assert ended.err.count("\n") == 1
        assert "Traceback" not in ended.err
        return ended.err

    return command


def describe(target: str = "lowbit.models.MLP", **arguments: Any) -> dict[str, Any]:
    return {
        "model": {"target": target, "arguments": ARGUMENTS | arguments},
        "input": {"shape": [1, 8, 8], "mean": [0.25], "std": [0.5], "resize": 8},
        "prepare_qat": {},
        "weights": "quantized",
        "experiment": "test",
    }


def write(path: Path, model: nn.Module, description: dict[str, Any] | None) -> Path:
    """A checkpoint of ``model``, whose description is left out where it is None."""
    state = {f"model.{name}": value for name, value in model.state_dict().items()}
    said = {} if description is None else {"lowbit": description}
    torch.save({"state_dict": {**state, "metrics.count": torch.zeros(1)}, **said}, path)
    return path


@pytest.fixture
def model() -> nn.Module:
    """A binary network whose batch norms have seen data."""
    network = MLP(**ARGUMENTS)
    with torch.no_grad():
        network(torch.randn(32, 1, 8, 8))
    return network.eval()


@pytest.fixture
def checkpoint(tmp_path: Path, model: nn.Module) -> Path:
    return write(tmp_path / "best.ckpt", model, describe())
