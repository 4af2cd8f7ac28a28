"""A graph of ONNX operators, as plain data: nodes, and the arrays that they read."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lowbit.export._package import onnx_package

OPSET = 21
# The format of files that opset 21 came with.
IR_VERSION = 10
BATCH = "batch"

Dims = tuple[int | str, ...]


@dataclasses.dataclass(frozen=True)
class Node:
    """One operator: its inputs and outputs by name ("" for an input left out), its attributes.

    ``op`` is that of ONNX, or domain::name.
    """

    op: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: tuple[tuple[str, Any], ...]


@dataclasses.dataclass(frozen=True)
class Value:
    """An input or output of the graph: a length may be a name where it is free."""

    name: str
    dtype: torch.dtype
    dims: Dims


class Graph:
    """Nodes in order, constants by name, inputs and outputs.

    ``shapes`` names the constants that are shapes of results: one of their lengths may follow
    from the others.
    """

    def __init__(self) -> None:
        self.nodes: list[Node] = []
        self.constants: dict[str, Tensor] = {}
        self.shapes: set[str] = set()
        self.inputs: list[Value] = []
        self.outputs: list[Value] = []
        self._used: set[str] = set()

    def free_name(self, wish: str) -> str:
        """``wish``, or with a number where it is taken."""
        name, number = wish, 1
        while name in self._used:
            name, number = f"{wish}_{number}", number + 1
        self._used.add(name)
        return name

    def constant(self, value: Tensor, wish: str = "constant") -> str:
        """The name of a new constant with these numbers."""
        name = self.free_name(wish)
        self.constants[name] = value.detach().cpu().clone(memory_format=torch.contiguous_format)
        return name

    def shape(self, lengths: Sequence[int]) -> str:
        """The name of a new constant that is the shape of a result."""
        name = self.constant(torch.tensor(list(lengths), dtype=torch.int64), "shape")
        self.shapes.add(name)
        return name

    def node(self, op: str, inputs: Sequence[str], outputs: int, attributes: Any) -> list[str]:
        """Names of the outputs of a new node; attributes of None are left out."""
        names = [self.free_name(op.rpartition("::")[2].lower()) for _ in range(outputs)]
        given = tuple((key, value) for key, value in attributes.items() if value is not None)
        self.nodes.append(Node(op, tuple(inputs), tuple(names), given))
        return names


def with_free_batch(one: Graph, other: Graph) -> Graph:
    """``one``, with what differs from ``other`` left free: the same model on a longer batch.

    ValueError where that is more than one length of a shape: then the model's arithmetic depends
    on the size of the batch, and the file would be for this size alone.
    """
    if one.nodes != other.nodes or one.constants.keys() != other.constants.keys():
        _depends_on_batch("takes other operators")
    free = Graph()
    free.nodes, free.shapes = one.nodes, one.shapes
    for name, value in one.constants.items():
        longer = other.constants[name]
        if value.shape == longer.shape and torch.equal(value, longer):
            free.constants[name] = value
            continue
        differs = value != longer if value.shape == longer.shape else torch.tensor([True, True])
        if name not in one.shapes or int(differs.sum()) != 1:
            _depends_on_batch(f"has other numbers in a constant of shape {tuple(value.shape)}")
        free.constants[name] = torch.where(differs, -1, value)
    for values, first, second in (
        (free.inputs, one.inputs, other.inputs),
        (free.outputs, one.outputs, other.outputs),
    ):
        for a, b in zip(first, second, strict=True):
            dims = (x if x == y else BATCH for x, y in zip(a.dims, b.dims, strict=True))
            values.append(Value(a.name, a.dtype, tuple(dims)))
    return free


def _depends_on_batch(how: str) -> None:
    raise ValueError(
        f"with another number of images the model {how}, so that no graph serves all: write it "
        "with x.flatten(1) or x.size(0), or export it for this number with dynamic_batch=False"
    )


def model_of(graph: Graph, name: str, producer_version: str) -> Any:
    """The ``onnx.ModelProto`` of a graph."""
    onnx = onnx_package()
    helper = onnx.helper

    def element(dtype: torch.dtype) -> int:
        return int(helper.np_dtype_to_tensor_dtype(torch.empty(0, dtype=dtype).numpy().dtype))

    def infos(values: list[Value]) -> list[Any]:
        return [
            helper.make_tensor_value_info(value.name, element(value.dtype), list(value.dims))
            for value in values
        ]

    nodes = [
        helper.make_node(
            op, node.inputs, node.outputs, node.outputs[0], domain=domain, **attributes
        )
        for node in graph.nodes
        for domain, _, op in [node.op.rpartition("::")]
        for attributes in [
            {
                key: element(value) if isinstance(value, torch.dtype) else value
                for key, value in node.attributes
            }
        ]
    ]
    read = {name for node in graph.nodes for name in node.inputs}
    read |= {value.name for value in graph.outputs}
    constants = [
        onnx.numpy_helper.from_array(value.numpy(), key)
        for key, value in graph.constants.items()
        if key in read
    ]
    made = helper.make_graph(nodes, name, infos(graph.inputs), infos(graph.outputs), constants)
    domains = {node.domain for node in nodes if node.domain}
    model = helper.make_model(
        made,
        opset_imports=[
            helper.make_opsetid("", OPSET),
            *(helper.make_opsetid(domain, 1) for domain in sorted(domains)),
        ],
        ir_version=IR_VERSION,
        producer_name="lowbit",
        producer_version=producer_version,
    )
    onnx.checker.check_model(model)
    return model
