"""Who runs the network: each makes a call of it for an input."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

import lowbit
from _bench.int8 import legacy, onnx_peers
from _bench.int8.absent import NotHere
from _bench.int8.folded import folded
from _bench.int8.resnet import Task

# An input (n, 3, h, w), channels last, -> the call that returns its logits (n, classes).
Maker = Callable[[Tensor], Callable[[], Tensor]]


def _module(model: nn.Module) -> Maker:
    return lambda x: lambda: model(x)


def converted(task: Task) -> Any:
    """lowbit's int8 network: full-range MinMax on the calibration images."""
    prepared = lowbit.prepare(task.model)
    with torch.no_grad():
        for batch in task.batches():
            prepared(batch)
    return lowbit.convert(prepared, to="int8").model


FLOAT, LEGACY, LOWBIT = "float32", "legacy", "lowbit"
CONTENDERS: dict[str, Callable[[Task], Maker]] = {
    FLOAT: lambda task: _module(task.model),
    "float32, BN folded": lambda task: _module(folded(task.model)),
    LEGACY: lambda task: _module(legacy.network(task)),
    LOWBIT: lambda task: _module(converted(task)),
    "onnxruntime": onnx_peers.in_onnxruntime,
    "OpenVINO": onnx_peers.in_openvino,
}


def made(task: Task) -> tuple[dict[str, Maker], dict[str, str]]:
    """Those that are here, and for the others the reason that they are not."""
    here: dict[str, Maker] = {}
    absent: dict[str, str] = {}
    for name, make in CONTENDERS.items():
        try:
            here[name] = make(task)
        except NotHere as error:
            absent[name] = str(error)
    return here, absent
