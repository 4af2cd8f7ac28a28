"""Shapes of the values of a traced graph, without running it.

A shape is a tuple of sizes, batch first; a size is an integer where it is known, and else a
symbol that says how it arose. Two values with equal shapes have equal shapes for every input.
None is a shape of which nothing is known.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Hashable
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from torch import fx, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd
from torch.nn.modules.pooling import _AvgPoolNd, _MaxPoolNd

from lowbit.nn import ChannelMix, ChannelScale, DPReLU, LearnedScale, Maxout, QActivation, RPReLU

Shape: TypeAlias = tuple[Hashable, ...] | None

# Modules that keep the shape of their first input.
POINTWISE = (
    _BatchNorm,
    nn.Identity,
    nn.Dropout,
    nn.Dropout1d,
    nn.Dropout2d,
    nn.Dropout3d,
    nn.ReLU,
    nn.ReLU6,
    nn.LeakyReLU,
    nn.PReLU,
    nn.Hardtanh,
    nn.Sigmoid,
    nn.Tanh,
    nn.GELU,
    nn.SiLU,
    ChannelMix,
    ChannelScale,
    DPReLU,
    LearnedScale,
    Maxout,
    QActivation,
    RPReLU,
)
RELUS: tuple[Any, ...] = (F.relu, torch.relu, torch.relu_, F.relu_, "relu", "relu_")
ADDS: tuple[Any, ...] = (operator.add, operator.iadd, torch.add, "add", "add_", "__add__")
KEEPING: tuple[Any, ...] = (*RELUS, F.hardtanh, F.dropout, torch.sigmoid, torch.tanh, "contiguous")


def along(size: Hashable, kernel: int, stride: int, padding: int, dilation: int) -> Hashable:
    """What a window makes of a size: floor((size + padding - reach) / stride) + 1.

    ``padding`` is that of both ends together.

    >>> along(224, 7, 2, 6, 1), along("h", 3, 1, 2, 1)
    (112, 'h')
    >>> along("h", 3, 2, 2, 1) == along("h", 1, 2, 0, 1) != along("h", 2, 2, 0, 1)
    True
    """
    excess = padding - dilation * (kernel - 1) - 1
    if isinstance(size, int):
        return (size + excess) // stride + 1
    return size if (excess, stride) == (-1, 1) else ("window", size, excess, stride)


def _tuple(value: Any, rank: int) -> tuple[int, ...]:
    return (value,) * rank if isinstance(value, int) else tuple(value)


def _windows(shape: Shape, rank: int, channels: Hashable, windows: list[tuple[int, ...]]) -> Shape:
    if shape is None or len(shape) != rank + 2:
        return None
    sizes = (along(s, *window) for s, window in zip(shape[2:], windows, strict=True))
    return (shape[0], shape[1] if channels is None else channels, *sizes)


def _convolved(conv: _ConvNd, shape: Shape) -> Shape:
    rank = len(conv.kernel_size)
    ends = tuple(reversed(conv._reversed_padding_repeated_twice))
    padding = [a + b for a, b in zip(ends[::2], ends[1::2], strict=True)]
    windows = zip(conv.kernel_size, conv.stride, padding, conv.dilation, strict=True)
    return _windows(shape, rank, conv.out_channels, list(windows))


def _pooled(pool: Any, shape: Shape) -> Shape:
    if shape is None:
        return None
    rank = len(shape) - 2
    kernel, padding = _tuple(pool.kernel_size, rank), _tuple(pool.padding, rank)
    stride = kernel if pool.stride is None else _tuple(pool.stride, rank)
    dilation = _tuple(getattr(pool, "dilation", 1), rank)
    if pool.ceil_mode and (any(padding) or any(s > k for s, k in zip(stride, kernel, strict=True))):
        return None  # windows that would start past the end are dropped: no one formula
    # Rounding up is rounding down with a stride's remainder more.
    more = [s - 1 if pool.ceil_mode else 0 for s in stride]
    ends = [2 * p + m for p, m in zip(padding, more, strict=True)]
    return _windows(shape, rank, None, list(zip(kernel, stride, ends, dilation, strict=True)))


def _flat(node: fx.Node, shape: Shape) -> Shape:
    """What is left of axis 1 and all after it."""
    if shape is None:
        return (("batch", node.name), ("flat", node.name))
    sizes = shape[1:]
    if all(isinstance(size, int) for size in sizes):
        product = 1
        for size in sizes:
            assert isinstance(size, int)
            product *= size
        return (shape[0], product)
    return (shape[0], ("flat", sizes) if len(sizes) > 1 else sizes[0])


def _read_by(conv: _ConvNd, name: str) -> Shape:
    """The shape of an unknown value that a convolution reads."""
    places = (("axis", name, i) for i in range(len(conv.kernel_size)))
    return (("batch", name), conv.in_channels, *places)


def _of_module(module: nn.Module, node: fx.Node, shape: Shape) -> Shape:
    if isinstance(module, _ConvNd) and not module.transposed:
        return _convolved(module, shape)
    if isinstance(module, nn.Linear):
        return None if shape is None else (*shape[:-1], module.out_features)
    if isinstance(module, _MaxPoolNd | _AvgPoolNd):
        return _pooled(module, shape)
    if isinstance(module, nn.Flatten) and (module.start_dim, module.end_dim) == (1, -1):
        return _flat(node, shape)
    if isinstance(module, POINTWISE):
        return shape
    return None


def _is_mean_of_places(node: fx.Node) -> bool:
    """x.mean((2, 3)), torch.mean(x, dim=[2, 3]) and their like."""
    dims = node.kwargs.get("dim", node.args[1] if len(node.args) > 1 else None)
    keep = node.kwargs.get("keepdim", False)
    return isinstance(dims, list | tuple) and sorted(map(str, dims)) == ["2", "3"] and not keep


def is_flatten(node: fx.Node) -> bool:
    """Whether a call of a function or method flattens axis 1 and all after it."""
    arguments = (*node.args[1:], *node.kwargs.values())
    return node.target in ("flatten", torch.flatten) and arguments in ((1,), (1, -1))


def _strided(node: fx.Node, shape: Shape) -> Shape:
    """x[:, :, ::s, ::s] and its like: of each axis all, or every s-th from the first on."""
    index = node.args[1]
    if shape is None or not isinstance(index, tuple) or len(index) > len(shape):
        return None
    steps = [i.step or 1 for i in index if isinstance(i, slice) and i.start is i.stop is None]
    if len(steps) != len(index) or not all(isinstance(s, int) and s > 0 for s in steps):
        return None
    steps += [1] * (len(shape) - len(steps))
    return tuple(along(size, 1, s, 0, 1) for size, s in zip(shape, steps, strict=True))


def _padded(node: fx.Node, shape: Shape) -> Shape:
    """F.pad(x, ends), ends of the last axis first."""
    ends = node.kwargs.get("pad", node.args[1] if len(node.args) > 1 else None)
    if shape is None or not isinstance(ends, list | tuple) or len(ends) > 2 * len(shape):
        return None
    if not all(isinstance(end, int) for end in ends):
        return None
    sizes = list(shape)
    for i in range(len(ends) // 2):
        more = ends[2 * i] + ends[2 * i + 1]
        sizes[-1 - i] = along(sizes[-1 - i], 1, 1, more, 1)
    return tuple(sizes)


def _of_call(node: fx.Node, shapes: list[Shape]) -> Shape:
    if not shapes:
        return None
    if node.target is operator.getitem:
        return _strided(node, shapes[0])
    if node.target is F.pad:
        return _padded(node, shapes[0])
    if is_flatten(node):
        return _flat(node, shapes[0])
    if node.target in ("mean", torch.mean) and _is_mean_of_places(node):
        return shapes[0][:2] if shapes[0] is not None and len(shapes[0]) == 4 else None
    if node.target in KEEPING:
        return shapes[0]
    if node.target in ADDS and (len(shapes) == 1 or shapes[0] == shapes[1]):
        numbers = all(isinstance(a, fx.Node | int | float) for a in node.args)
        return shapes[0] if numbers else None
    return None


def infer(graph: fx.Graph, module_of: Callable[[str], nn.Module]) -> dict[fx.Node, Shape]:
    """The shape of every value of the graph, as far as its structure says."""
    shapes: dict[fx.Node, Shape] = {}
    for node in graph.nodes:
        inputs = [a for a in node.args if isinstance(a, fx.Node)]
        if node.op == "call_module" and inputs and inputs[0] is node.args[0]:
            source, module = inputs[0], module_of(str(node.target))
            if shapes[source] is None and isinstance(module, _ConvNd):
                shapes[source] = _read_by(module, source.name)
            shapes[node] = _of_module(module, node, shapes[source])
        elif node.op in ("call_function", "call_method"):
            shapes[node] = _of_call(node, [shapes[i] for i in inputs])
        else:
            shapes[node] = None
    return shapes
