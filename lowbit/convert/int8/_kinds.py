"""What each operation of a traced model is to int8."""

from __future__ import annotations

import enum
import operator
from typing import Any

import torch
import torch.nn.functional as F
from torch import fx, nn

from lowbit.convert._shapes import ADDS, RELUS
from lowbit.convert._trace import has_hooks
from lowbit.convert.int8._layers import OWN_SCALE, OWN_SCALE_BETWEEN_STUBS, weighted, why_not


class Kind(enum.Enum):
    """How the integers of an operation's output come from those of its inputs."""

    WEIGHTED = "sums of products, quantized once with a scale of their own"
    SAME = "the same scale and zero point"
    OWN = "a scale of its own"
    FIXED = "a scale that is known beforehand"
    QUERY = "no tensor: a size, a dtype"
    QUANT = "a QuantStub"
    DEQUANT = "a DeQuantStub"
    FLOAT = "no int8 form"


RELU6S: tuple[Any, ...] = (F.relu6,)
MULS: tuple[Any, ...] = (operator.mul, operator.imul, torch.mul, "mul", "mul_", "__mul__")
CATS: tuple[Any, ...] = (torch.cat, torch.concat, torch.concatenate)
FIXED: tuple[Any, ...] = (
    *(torch.sigmoid, F.sigmoid, "sigmoid", torch.tanh, F.tanh, "tanh", F.hardsigmoid),
)
# Means, and resizing by them, stay in float: rounded to the grid of what they read they would
# lose what is small, and training does not round there.
RESIZES = ("nearest",)
QUERIES = ("size", "dim", "numel", "ndimension", "is_contiguous")
_SAME_METHODS = (
    *("flatten", "reshape", "view", "permute", "transpose", "movedim", "unflatten", "squeeze"),
    *("unsqueeze", "contiguous", "chunk", "split", "narrow", "select", "flip", "clone", "detach"),
    *("relu", "relu_", "index_select", "expand", "t", "unbind"),
)
_SAME_FUNCTIONS: tuple[Any, ...] = (
    *RELUS,
    *RELU6S,
    *(getattr(torch, name) for name in _SAME_METHODS if hasattr(torch, name)),
    operator.getitem,
    F.max_pool1d,
    F.max_pool2d,
    F.max_pool3d,
    F.interpolate,
    F.dropout,
)
_SAME_MODULES = (
    *(nn.ReLU, nn.ReLU6, nn.Identity, nn.Flatten, nn.Unflatten),
    *(nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d),
    *(nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d, nn.Upsample, nn.UpsamplingNearest2d),
)
_FIXED_MODULES = (nn.Sigmoid, nn.Tanh, nn.Hardsigmoid)


def kind_of(node: fx.Node, model: nn.Module, stubs: bool) -> Kind:
    """The kind of a node; ``stubs``: whether the model says by stubs what is to be int8."""
    if node.op == "call_module":
        kind = _of_module(model.get_submodule(str(node.target)), stubs)
        plain = len(node.args) == 1 and not node.kwargs  # no output_size, say
        return Kind.FLOAT if kind is Kind.WEIGHTED and not plain else kind
    if node.op == "call_method" and node.target in QUERIES:
        return Kind.QUERY
    if node.op == "call_function" and node.target is getattr:
        return Kind.QUERY
    if node.op not in ("call_function", "call_method"):
        return Kind.FLOAT
    if is_cat(node) or is_sum(node) or is_product(node):
        return Kind.OWN
    if node.target in FIXED:
        return Kind.FIXED
    if node.target is F.interpolate and not _resizes_integers(node):
        return Kind.FLOAT
    same = _SAME_FUNCTIONS if node.op == "call_function" else _SAME_METHODS
    return Kind.SAME if node.target in same and _only_reads_first(node) else Kind.FLOAT


def _of_module(module: nn.Module, stubs: bool) -> Kind:
    name = type(module).__name__
    if name in ("QuantStub", "DeQuantStub"):
        return Kind.QUANT if name == "QuantStub" else Kind.DEQUANT
    if has_hooks(module) and not hasattr(module, "weight_fake_quant"):
        return Kind.FLOAT
    if weighted(module) is not None:
        return Kind.FLOAT if why_not(module) else Kind.WEIGHTED
    if type(module) in _SAME_MODULES and not getattr(module, "return_indices", False):
        return Kind.SAME if getattr(module, "mode", "nearest") in RESIZES else Kind.FLOAT
    if type(module) in _FIXED_MODULES:
        return Kind.FIXED
    own = OWN_SCALE_BETWEEN_STUBS if stubs else OWN_SCALE
    if type(module) in own and getattr(module, "track_running_stats", True) is not False:
        return Kind.OWN
    return Kind.FLOAT


def _resizes_integers(node: fx.Node) -> bool:
    mode = node.args[3] if len(node.args) > 3 else node.kwargs.get("mode", "nearest")
    others = (node.kwargs.get("recompute_scale_factor"), node.kwargs.get("antialias"))
    return mode in RESIZES and len(node.args) < 6 and not any(others)


def _only_reads_first(node: fx.Node) -> bool:
    """Whether the first argument is the one tensor; sizes may be other nodes."""
    return bool(node.args) and isinstance(node.args[0], fx.Node)


def is_sum(node: fx.Node) -> bool:
    """x + y of two values of the graph."""
    return node.target in ADDS and _is_pair(node)


def is_product(node: fx.Node) -> bool:
    """x * y of two values of the graph."""
    return node.target in MULS and _is_pair(node)


def _is_pair(node: fx.Node) -> bool:
    two = len(node.args) == 2 and not node.kwargs
    return two and all(isinstance(arg, fx.Node) and arg.op != "get_attr" for arg in node.args)


def is_cat(node: fx.Node) -> bool:
    """torch.cat of values of the graph."""
    if node.target not in CATS or not isinstance(node.args[0] if node.args else None, list | tuple):
        return False
    return all(isinstance(part, fx.Node) for part in node.args[0])  # type: ignore[union-attr]


def clamp_of(node: fx.Node, model: nn.Module) -> str:
    """ "relu", "relu6", or "" for another operation."""
    if node.op == "call_module":
        module = model.get_submodule(str(node.target))
        clamp = {nn.ReLU: "relu", nn.ReLU6: "relu6"}.get(type(module), "")
        return "" if has_hooks(module) else clamp
    if node.op == "call_function" and node.target in RELU6S:
        return "relu6"
    return "relu" if node.op.startswith("call") and node.target in RELUS else ""


def tensors_read(node: fx.Node, kind: Kind) -> list[fx.Node]:
    """The values whose integers an operation of this kind would read."""
    if kind is Kind.OWN:
        return list(node.all_input_nodes)
    first = node.args[0] if node.args else None
    return [first] if isinstance(first, fx.Node) else []
