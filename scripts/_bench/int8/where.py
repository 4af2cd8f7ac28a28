"""Where the time of a converted network goes: for each node of its graph, and inside it.

A node's time has three measures, by passes of their own: all of it; the part inside PyTorch's
operators, which is their share of the node in its profiler; and the part in which oneDNN computes,
by its own clock. What is left of the first beside the second is Python and dispatch; of
the second beside the third, the operator's preparations and what is not oneDNN's. What the network
takes beside the sum of its nodes is glue.
"""

from __future__ import annotations

import ctypes
import functools
import os
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx
from torch.profiler import ProfilerActivity, profile, record_function

MARK = "node: "

Call = Callable[[], Any]
Around = Callable[[str, Call], Any]


@dataclass
class Node:
    """One node: what it is, and microseconds; ``onednn`` is None where it cannot be known."""

    name: str
    kind: str
    total: float
    operators: float
    onednn: float | None

    @property
    def python(self) -> float:
        """Python and dispatch."""
        return self.total - self.operators


@dataclass
class Breakdown:
    """The nodes, and what a call of the whole network takes, in microseconds."""

    nodes: list[Node]
    network: float

    @property
    def glue(self) -> float:
        """The network beside the sum of its nodes."""
        return self.network - sum(node.total for node in self.nodes)

    def record(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "network": round(self.network, 1),
            "glue": round(self.glue, 1),
            "sums": {
                name: None if value is None else round(value, 1)
                for name, value in self.sums().items()
            },
            "nodes": [
                {
                    "name": node.name,
                    "kind": node.kind,
                    "total": round(node.total, 1),
                    "operators": round(node.operators, 1),
                    "onednn": None if node.onednn is None else round(node.onednn, 1),
                }
                for node in self.nodes
            ],
        }

    def sums(self) -> dict[str, float | None]:
        """Of all nodes."""
        clocks = [node.onednn for node in self.nodes]
        return {
            "nodes": sum(node.total for node in self.nodes),
            "operators": sum(node.operators for node in self.nodes),
            "python": sum(node.python for node in self.nodes),
            "onednn": None if None in clocks else sum(c for c in clocks if c is not None),
        }


class _Around(fx.Interpreter):
    """Runs a graph, each node that computes inside ``around``."""

    def __init__(self, model: fx.GraphModule, around: Around) -> None:
        super().__init__(model)
        self._around, self._name = around, ""

    def run_node(self, n: fx.Node) -> Any:
        self._name = n.name
        return super().run_node(n)

    def call_module(self, target: Any, args: Any, kwargs: Any) -> Any:
        module = self.fetch_attr(target)
        return self._around(self._name, lambda: module(*args, **kwargs))

    def call_function(self, target: Any, args: Any, kwargs: Any) -> Any:
        return self._around(self._name, lambda: target(*args, **kwargs))

    def call_method(self, target: Any, args: Any, kwargs: Any) -> Any:
        method = getattr(args[0], target)
        return self._around(self._name, lambda: method(*args[1:], **kwargs))


def breakdown(model: fx.GraphModule, x: Tensor, passes: int) -> Breakdown:
    """The nodes of a graph for an input, and the whole, each the fastest of ``passes``.

    Not the median: other work on the machine interrupts a whole network more often than a node.
    """
    turns = (_whole, _timed, _in_onednn)
    found: list[list[dict[str, float]]] = [[] for _ in turns]
    with torch.inference_mode():
        for _ in range(3):
            model(x)
        for _ in range(passes):
            for measure, times in zip(turns, found, strict=True):
                model(x)  # so that caches are those of inference
                times.append(measure(model, x))
        operators = _medians(_shares(model, x, passes))
    whole, total, onednn = map(_fastest, found)
    nodes = [
        Node(
            node.name,
            _kind(model, node),
            total[node.name],
            operators[node.name] * total[node.name],
            onednn.get(node.name, 0.0) if onednn else None,
        )
        for node in model.graph.nodes
        if node.name in total
    ]
    return Breakdown(nodes, whole[""])


def _kind(model: fx.GraphModule, node: fx.Node) -> str:
    if node.op == "call_module":
        return type(model.get_submodule(str(node.target))).__name__
    return str(getattr(node.target, "__name__", node.target))


def _by_name(passes: list[dict[str, float]]) -> dict[str, list[float]]:
    found: dict[str, list[float]] = defaultdict(list)
    for times in passes:
        for name, value in times.items():
            found[name].append(value)
    return found


def _fastest(passes: list[dict[str, float]]) -> dict[str, float]:
    return {name: min(values) for name, values in _by_name(passes).items()}


def _medians(passes: list[dict[str, float]]) -> dict[str, float]:
    return {name: statistics.median(values) for name, values in _by_name(passes).items()}


def _whole(model: fx.GraphModule, x: Tensor) -> dict[str, float]:
    start = time.perf_counter()
    model(x)
    return {"": 1e6 * (time.perf_counter() - start)}


def _timed(model: fx.GraphModule, x: Tensor) -> dict[str, float]:
    times = {}

    def around(name: str, call: Call) -> Any:
        start = time.perf_counter()
        y = call()
        times[name] = 1e6 * (time.perf_counter() - start)
        return y

    _Around(model, around).run(x)
    return times


def _shares(model: fx.GraphModule, x: Tensor, passes: int) -> list[dict[str, float]]:
    """Of each node's time, the part of its operators, as the profiler sees both.

    They are the outermost ones; of one that Python runs, those that it calls.
    """

    def around(name: str, call: Call) -> Any:
        with record_function(MARK + name):
            return call()

    # All passes in one: the profiler logs each of its starts on stderr.
    with profile(activities=[ProfilerActivity.CPU]) as profiled:
        for _ in range(passes):
            _Around(model, around).run(x)

    def spent(event: Any) -> float:
        if _in_python(event.name):
            return sum(spent(child) for child in event.cpu_children)
        return float(event.cpu_time_total)

    return [
        {
            event.name.removeprefix(MARK): sum(spent(child) for child in event.cpu_children)
            / event.cpu_time_total
        }
        for event in profiled.events()
        if event.name.startswith(MARK)
    ]


@functools.cache
def _in_python(operator: str) -> bool:
    """Whether its kernel for the processor is a function of Python."""
    in_python = torch.library._impls  # names such as lowbit/qconv/CPU
    name = operator.replace("::", "/")
    if f"{name}/CPU" in in_python:
        return True
    general = f"{name}/CompositeExplicitAutograd" in in_python
    return general and not torch._C._dispatch_has_kernel_for_dispatch_key(operator, "CPU")


def _in_onednn(model: fx.GraphModule, x: Tensor) -> dict[str, float]:
    """What oneDNN says that its primitives took; empty where it says nothing."""
    mkldnn = torch.backends.mkldnn
    if not mkldnn.is_available():
        return {}
    times: dict[str, float] = {}
    with _standard_output() as printed, mkldnn.verbose(mkldnn.VERBOSE_ON):

        def around(name: str, call: Call) -> Any:
            printed()
            y = call()
            times[name] = sum(map(_primitive, printed().splitlines()))
            return y

        _Around(model, around).run(x)
    return times if any(times.values()) else {}


def _primitive(line: str) -> float:
    """Microseconds of a line such as ``onednn_verbose,v1,primitive,exec,cpu,…,0.25``."""
    fields = line.split(",")
    return 1e3 * float(fields[-1]) if "exec" in fields and "onednn_verbose" in fields else 0.0


@contextmanager
def _standard_output() -> Iterator[Callable[[], str]]:
    """Catch what C code prints; the function gives what came since it was called before."""
    libc = ctypes.CDLL(None)
    sys.stdout.flush()
    kept = os.dup(1)
    # Two files on one path: reading does not move where the other writes.
    with tempfile.NamedTemporaryFile() as written, open(written.name) as read:

        def printed() -> str:
            libc.fflush(None)
            return read.read()

        os.dup2(written.fileno(), 1)
        try:
            yield printed
        finally:
            libc.fflush(None)
            os.dup2(kept, 1)
            os.close(kept)
