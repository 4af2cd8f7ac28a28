"""Packed files that something else wrote to."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

import lowbit
from lowbit.nn import QConv2d, QLinear
from tests.convert._networks import SIGN

ENTRY = "lowbit.packed"


class Small(nn.Module):
    """A graph with a function, a method and an attribute."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = QConv2d(16, 64, 3, padding=1, **SIGN)
        self.norm = nn.BatchNorm2d(64)
        self.fc = QLinear(64, 64, **SIGN)
        self.last = nn.Linear(64, 3)

    def forward(self, x):
        y = self.norm(self.conv(x))
        y = torch.cat([y, y], 2).mean((2, 3))
        return self.last(self.fc(y)).reshape(x.shape[0], 3)


def small_file(folder: Path) -> Path:
    """A packed file of ``Small``."""
    torch.manual_seed(0)
    packed = lowbit.convert(Small(), keep_slower=True).model
    return lowbit.save_packed(packed, folder / "small.safetensors")


def header_of(path: Path) -> Any:
    """What save_packed wrote beside the tensors."""
    with safe_open(path, "pt") as file:
        return json.loads(file.metadata()[ENTRY])


def rewrite(
    path: Path,
    header: Callable[[Any], None] = lambda header: None,
    tensors: Callable[[dict[str, torch.Tensor]], None] = lambda tensors: None,
) -> Path:
    """The file again, by safetensors' own writer, with its header and its tensors changed."""
    with safe_open(path, "pt") as file:
        held = {name: file.get_tensor(name).clone() for name in list(file.keys())}
    changed = copy.deepcopy(header_of(path))
    header(changed)
    tensors(held)
    save_file(held, path, {ENTRY: json.dumps(changed)})
    return path
