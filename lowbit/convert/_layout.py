"""Layouts around exact float layers: images go channels last where that changes no bit.

What is exact in any layout (packed layers, norms, sums of two, maxima) runs channels last where a
packed layer in its midst is faster so. Whatever sums in an order of its own (float convolutions,
means) sees the layout that it saw in the trained model, and so does the caller.
"""

from __future__ import annotations

import operator
from collections import Counter
from collections.abc import Collection
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from lowbit.convert._float import ChannelsLast, OverlappingMaxPool2d, channels_last
from lowbit.convert._norm import FrozenNorm
from lowbit.convert._replace import added
from lowbit.convert._shapes import ADDS, RELUS, Shape, is_flatten
from lowbit.convert._trace import has_hooks
from lowbit.nn import DPReLU, LearnedScale, Maxout, QActivation, QConv2d, RPReLU
from lowbit.nn.packed import PackedConv2d, PackedMaxPool2d
from lowbit.nn.packed.conv import comes_channels_last

# By exact class: each output is rounded in the same way wherever its inputs lie.
POOLS = (nn.MaxPool2d, OverlappingMaxPool2d)
EXACT = (
    *POOLS,
    nn.AvgPool2d,  # sums a window row by row in both layouts
    FrozenNorm,
    nn.ReLU,
    nn.ReLU6,
    nn.LeakyReLU,
    nn.PReLU,
    nn.Hardtanh,
    DPReLU,
    LearnedScale,
    Maxout,
    RPReLU,
)

# So many packed layers that give numbers, or norms, gain what a copy in and a copy out cost:
# chains of residual blocks, (1, 64, 56, 56), took 460 us channels last and 390 contiguous with 4
# layers, 619 and 623 with 6, 754 and 829 with 8. One max-pooling gains more: 759 us and 35.
LEAST_GAINING = 5


def says_channels_last(x: Tensor) -> bool:
    """Whether torch takes a tensor for channels last: of sizes 1, strides decide."""
    if x.ndim != 4 or not x.is_contiguous(memory_format=torch.channels_last):
        return x.ndim == 4 and comes_channels_last(x)  # a part of one
    return x.stride(1) == 1 and x.stride(3) == x.shape[1]


class AsTrained(nn.Module):
    """An image y with the very strides that the trained model gives it: x's layout."""

    def forward(self, y: Any, x: Any) -> Any:
        if not (isinstance(y, Tensor) and isinstance(x, Tensor)) or y.ndim != 4:
            return y
        if torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active():
            return y.contiguous() if x.is_contiguous() else channels_last(y)
        _, c, h, w = y.shape
        if says_channels_last(x):
            y, strides = channels_last(y), (h * w * c, 1, w * c, c)
        else:
            y, strides = y.contiguous(), (c * h * w, h * w, w, 1)
        return y if y.stride() == strides else y.as_strided(y.shape, strides)


def last_weights(model: nn.Module) -> set[str]:
    """Names of the convolutions whose weights are channels last, and so make their outputs."""
    layers = model.named_modules(remove_duplicate=False)
    return {n for n, m in layers if isinstance(m, nn.Conv2d) and says_channels_last(m.weight)}


def lay_out_runs(
    model: fx.GraphModule, shapes: dict[fx.Node, Shape], last: Collection[str]
) -> None:
    """Lay out the images of a folded model; ``last`` is what ``last_weights`` found in it."""
    _Runs(model, shapes, last).place()


class _Runs:
    """Runs: operations exact in any layout, connected by the images that they hand on.

    ``origin``  of a value: the node whose layout it has in the trained model; None: channels last
    """

    def __init__(
        self, model: fx.GraphModule, shapes: dict[fx.Node, Shape], last: Collection[str]
    ) -> None:
        self.model, self.graph, self.last = model, model.graph, last
        self.images = {node for node in self.graph.nodes if len(shapes.get(node) or ()) == 4}
        self.origin: dict[fx.Node, fx.Node | None] = {}
        self.run: dict[fx.Node, fx.Node] = {}  # of an operation, or what picks from it: a parent
        for node in self.graph.nodes:
            self._follow(node)

    def _module(self, node: fx.Node) -> nn.Module | None:
        return self.model.get_submodule(str(node.target)) if node.op == "call_module" else None

    def _inputs(self, node: fx.Node) -> list[fx.Node]:
        return [value for value in node.all_input_nodes if value in self.images]

    def _head(self, node: fx.Node) -> fx.Node:
        while self.run[node] is not node:
            node = self.run[node]
        return node

    def _follow(self, node: fx.Node) -> None:
        """Note where the node's layout comes from, and the run that it belongs to."""
        first = node.all_input_nodes[0] if node.all_input_nodes else node
        picked = node.target is operator.getitem and self._is_packed(first)
        if picked and first in self.run:
            self.run[node] = self._head(first)
            if node.args[1] == 0:
                self.images.add(node)
        elif self._exact(node):
            self.run[node] = node
            for value in self._inputs(node):
                if value in self.run:
                    self.run[self._head(value)] = self._head(node)
            if not self._hands_on_bits(node):
                self.images.add(node)
        keeps = picked or node in self.run or self._is_packed(node) or self._is_convolution(node)
        keeps = keeps and not self._is_circular(first if picked else node)
        self.origin[node] = self.origin[first] if keeps and first is not node else node
        if self._makes_channels_last(node):
            self.origin[node] = None

    def _exact(self, node: fx.Node) -> bool:
        module, inputs = self._module(node), self._inputs(node)
        if isinstance(module, PackedConv2d):
            bits = 1 if module.packed_input else 0
            return not module.act_scale and len(inputs) == len(node.all_input_nodes) - bits
        if not inputs or len(inputs) != len(node.all_input_nodes):
            return False
        if module is not None:
            if type(module) is QActivation:
                quantizer = module.input_quantization
                return quantizer is not None and quantizer.value_is_sign and not has_hooks(module)
            indices = getattr(module, "return_indices", False)
            return type(module) in EXACT and not has_hooks(module) and not indices
        if node.op not in ("call_function", "call_method"):
            return False
        return node.target in RELUS or (node.target in ADDS and not node.kwargs)

    def _is_packed(self, node: fx.Node) -> bool:
        return isinstance(self._module(node), PackedConv2d | PackedMaxPool2d)

    def _hands_on_bits(self, node: fx.Node) -> bool:
        """Bits alone, or in a pair, which is no image itself."""
        return getattr(self._module(node), "out", "float") in ("bits", "both")

    def _is_convolution(self, node: fx.Node) -> bool:
        fixed = node.target is F.conv2d and len(node.all_input_nodes) > 1
        return fixed or type(self._module(node)) in (nn.Conv2d, QConv2d)

    def _is_circular(self, node: fx.Node) -> bool:
        """Whether a convolution pads its input as torch does by copies, which are contiguous."""
        return getattr(self._module(node), "padding_mode", "") == "circular"

    def _makes_channels_last(self, node: fx.Node) -> bool:
        if node.op == "call_module":
            return str(node.target) in self.last
        weight = node.all_input_nodes[1] if self._is_convolution(node) else node
        if weight.op != "get_attr":
            return False
        holder, _, name = str(weight.target).rpartition(".")
        return says_channels_last(getattr(self.model.get_submodule(holder), name))

    def _fast(self) -> set[fx.Node]:
        """Every operation of the runs that pay for copies at their ends."""
        gains: Counter[fx.Node] = Counter()
        for node in self.run:
            module = self._module(node)
            if type(module) in POOLS:
                gains[self._head(node)] += LEAST_GAINING
            elif isinstance(module, PackedConv2d):
                gains[self._head(node)] += module.out in ("float", "both")
            else:
                gains[self._head(node)] += type(module) is FrozenNorm
        return {node for node in self.run if gains[self._head(node)] >= LEAST_GAINING}

    def place(self) -> None:
        """Insert the copies, as few as there are values to copy."""
        fast = self._fast()
        as_trained = {node for node in self.images if node not in self.run}
        alike = set(as_trained)  # but for the strides of sizes of 1
        copies: dict[tuple[fx.Node, bool], fx.Node] = {}
        for node in list(self.graph.nodes):
            inputs = self._inputs(node)
            if node in fast:
                module = self._module(node)
                if isinstance(module, PackedConv2d) and module.packed_input:
                    module.channels_last = True
                for value in inputs:
                    if value not in fast:
                        node.replace_input_with(value, self._copy(value, True, copies))
            elif node in self.run:
                parents = node.all_input_nodes if node.target is operator.getitem else inputs
                if parents and alike.issuperset(parents):
                    alike.add(node)
                if inputs and as_trained.issuperset(inputs) and not self._is_packed(node):
                    as_trained.add(node)
            elif not self._is_flatten(node):
                kept = alike if node.op == "output" else as_trained
                for value in inputs:
                    if value not in kept and self.origin[value] is not value:
                        node.replace_input_with(value, self._copy(value, False, copies))

    def _copy(
        self, value: fx.Node, to_last: bool, copies: dict[tuple[fx.Node, bool], fx.Node]
    ) -> fx.Node:
        key = (value, to_last)
        if key not in copies:
            origin = self.origin[value]
            with self.graph.inserting_after(value):
                if to_last or origin is None:
                    name = added(self.model, "channels_last", ChannelsLast())
                    copies[key] = self.graph.call_module(name, (value,))
                else:
                    name = added(self.model, "as_trained", AsTrained())
                    copies[key] = self.graph.call_module(name, (value, origin))
        return copies[key]

    def _is_flatten(self, node: fx.Node) -> bool:
        """Whether the node lays out images in rows, which come out the same from every layout."""
        module = self._module(node)
        if module is not None:
            rows = isinstance(module, nn.Flatten) and (module.start_dim, module.end_dim) == (1, -1)
            return rows and not has_hooks(module)
        return is_flatten(node)
