"""Folding: what follows a packed layer runs inside it, where that is exact."""

from __future__ import annotations

import operator
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx, nn

from lowbit.convert import _bits
from lowbit.convert._norm import NORMS, FrozenNorm
from lowbit.convert._shapes import ADDS, RELUS, Shape, is_flatten
from lowbit.convert._steps import (
    MOST_STEPS,
    RELU_STEP,
    RESIDUAL_STEP,
    Step,
    merged,
    rows_of,
    steps_of,
)
from lowbit.convert._trace import has_hooks
from lowbit.functional.packing import WORD, pack_bits, unpack_bits
from lowbit.kernels import AFFINE
from lowbit.nn.packed import PackedLayer, PackedLinear, PackedMaxPool2d


@dataclass
class Link:
    """One operation that alone reads the value before it.

    steps     as steps of the operator, or None
    trial     the operation on a tensor, where it works on each number by itself
    pool      the pooling that it is
    residual  the other addend
    """

    node: fx.Node
    name: str
    steps: list[Step] | None = None
    trial: Callable[[Tensor], Tensor] | None = None
    pool: nn.MaxPool2d | None = None
    residual: fx.Node | None = None


class Reader(NamedTuple):
    """A packed layer's call that reads the signs of a value, maybe flattened by a node."""

    node: fx.Node
    flat: fx.Node | None


@dataclass
class Folded:
    """What became of one packed layer."""

    output: str = "float"
    names: list[str] = field(default_factory=list)
    why: str = ""


class Folding:
    """Folds over the graph of ``model``, whose layers are packed already.

    ``shapes`` has the shape of each node's value, None where it is unknown; ``kept`` are modules
    that stay, as ``forward`` reads their parts by itself.
    """

    def __init__(
        self, model: fx.GraphModule, shapes: dict[fx.Node, Shape], kept: Collection[nn.Module] = ()
    ) -> None:
        self.model = model
        self.kept = kept
        self.graph = model.graph
        self.shapes = shapes
        calls = self.graph.find_nodes(op="call_module")
        self.calls = Counter(str(node.target) for node in calls)
        self.names: dict[int, list[str]] = {}
        for name, module in model.named_modules(remove_duplicate=False):
            self.names.setdefault(id(module), []).append(name)

    def run(self) -> dict[str, Folded]:
        """Fold over every packed layer; returns what was done, by the layer's name."""
        done = {}
        for node in self.graph.find_nodes(op="call_module"):
            layer = self._packed(node)
            if layer is not None:
                done[str(node.target)] = self._fold(node, layer)
        self._freeze_norms()
        self.graph.eliminate_dead_code()
        self.graph.lint()
        self.model.delete_all_unused_submodules()
        self.model.recompile()
        return done

    def _freeze_norms(self) -> None:
        """Keep two numbers a channel of the batch norms that are left."""
        for node in self.graph.find_nodes(op="call_module"):
            norm: Any = self.model.get_submodule(str(node.target))
            if type(norm) in NORMS and not has_hooks(norm) and norm not in self.kept:
                frozen = FrozenNorm.from_trained(norm)
                if frozen is not None:
                    self.model.set_submodule(str(node.target), frozen)

    def _packed(self, node: fx.Node) -> PackedLayer | None:
        """The packed layer that the node calls, if it is called here alone."""
        if node.op != "call_module":
            return None
        module = self.model.get_submodule(str(node.target))
        if not isinstance(module, PackedLayer):
            return None
        once = sum(self.calls[name] for name in self.names[id(module)]) == 1
        return module if once else None

    # What follows.

    def _links(self, node: fx.Node, layer: PackedLayer) -> list[Link]:
        links: list[Link] = []
        value = node
        while len(value.users) == 1:
            user = next(iter(value.users))
            link = self._link(user, value, layer.out_channels)
            if link is None:
                break
            links.append(link)
            value = user
        return links

    def _link(self, user: fx.Node, value: fx.Node, channels: int) -> Link | None:
        if user.op == "call_module" and user.args == (value,) and not user.kwargs:
            name = str(user.target)
            module = self.model.get_submodule(name)
            if has_hooks(module):
                return None
            if type(module) is nn.MaxPool2d and not module.return_indices:
                return Link(user, name, pool=module)
            steps = steps_of(module, channels)
            if steps is not None or _bits.is_pointwise(module):
                return Link(user, name, steps, module)
            return None
        if user.op not in ("call_function", "call_method"):
            return None
        if user.target in RELUS and len(user.all_input_nodes) == 1:
            return Link(user, "relu", [RELU_STEP], torch.relu)
        if user.target in ADDS and len(user.args) == 2 and not user.kwargs:
            return self._residual(user, value)
        return None

    def _residual(self, user: fx.Node, value: fx.Node) -> Link | None:
        others = [a for a in user.args if a is not value]
        if len(others) != 1 or not isinstance(others[0], fx.Node):
            return None
        other = others[0]
        shape = self.shapes.get(value)
        # An addition that broadcasts is no residual.
        if shape is None or shape != self.shapes.get(other) or other.op == "get_attr":
            return None
        return Link(user, "add", [RESIDUAL_STEP], residual=other)

    # What reads.

    def _reads_signs(self, node: fx.Node, value: fx.Node) -> PackedLayer | None:
        """The packed layer by which the node reads the signs of a value and nothing else."""
        layer = self._packed(node)
        if layer is None or node.args[:1] != (value,) or value in node.args[1:]:
            return None
        if not _takes_bits(layer):
            return None
        if isinstance(layer, PackedLinear) and not self._is_matrix(value):
            return None
        return layer

    def _is_matrix(self, node: fx.Node) -> bool:
        shape = self.shapes.get(node)
        return shape is not None and len(shape) == 2

    def _readers(self, value: fx.Node, layer: PackedLayer) -> tuple[list[Reader], Tensor | None]:
        """What reads the signs of a value, which ``layer`` and what follows it give.

        And the thresholds (channels,) of the first that does, which all of them have.
        """
        found: list[Reader] = []
        first: Tensor | None = None
        channels, shape = layer.out_channels, self.shapes.get(value)
        # An example without a batch: axis 1 is no channel, and what is flattened no row of them.
        batched = shape is None or len(shape) == getattr(layer, "dims", 0) + 2
        for user in value.users:
            flat = batched and self._flattens(user, value)
            nodes = list(user.users) if flat else [user]
            for node in nodes:
                reader = self._reads_signs(node, user if flat else value)
                row = None if reader is None else _threshold_row(reader, channels, flat)
                if row is None:
                    continue
                first = row if first is None else first
                if torch.equal(row, first):
                    found.append(Reader(node, user if flat else None))
        return found, first

    def _flattens(self, node: fx.Node, value: fx.Node) -> bool:
        """Whether the node lays out channels and places of an image in one row."""
        if node.op == "call_module":
            module = self.model.get_submodule(str(node.target))
            rows = type(module) is nn.Flatten and (module.start_dim, module.end_dim) == (1, -1)
            return rows and not has_hooks(module) and node.args == (value,)
        return is_flatten(node)

    def _only_signs_are_read(self, value: fx.Node, readers: list[Reader]) -> bool:
        nodes = {reader.node for reader in readers}
        flats = {reader.flat for reader in readers}
        return all(
            user in nodes or (user in flats and nodes.issuperset(user.users))
            for user in value.users
        )

    # What is done.

    def _fold(self, node: fx.Node, layer: PackedLayer) -> Folded:
        if layer.act_scale:
            return Folded(why="its output is scaled by its inputs")
        if isinstance(layer, PackedLinear) and not self._is_matrix(node):
            return Folded(why="its input may have more than two axes: give example=")
        links = self._links(node, layer)
        why = ""
        try:
            folded = self._fold_bits(node, layer, links)
            if folded is not None:
                return folded
        except _bits.NoThreshold as error:
            why = str(error)
        folded = self._fold_steps(node, layer, links)
        folded.why = why
        return folded

    def _fold_bits(self, node: fx.Node, layer: PackedLayer, links: list[Link]) -> Folded | None:
        """Integers to signs in one comparison, where nothing else reads the numbers between."""
        end = links[-1].node if links else node
        pools = [i for i, link in enumerate(links) if link.pool is not None]
        readers, threshold = self._readers(end, layer)
        if not layer.plain or threshold is None or len(pools) > 1:
            return None
        if not self._only_signs_are_read(end, readers):
            return None
        trials = [link.trial for link in links if link.pool is None]
        if any(trial is None for trial in trials):
            return None
        at = pools[0] if pools else len(links)
        before, after = trials[:at], trials[at:]
        signs = _bits.signs_by_trial(
            layer.scale,
            layer.shift,
            before,  # type: ignore[arg-type]
            after if pools else None,  # type: ignore[arg-type]
            threshold,
            layer.geometry.bound,
            getattr(layer, "dims", 0),
        )
        layer.set_output("bits", (), signs.params)
        with self.graph.inserting_after(end):
            bits = self.graph.call_module(str(node.target), node.args)
        if pools:
            link = links[at]
            assert link.pool is not None
            name = link.name
            if self.calls[name] > 1:  # other values go through the same module
                name = f"{node.target}_pool"
            self.model.add_submodule(name, _packed_pool(link.pool, signs.pool_flip))
            with self.graph.inserting_after(bits):
                bits = self.graph.call_module(name, (bits,))
        self._hand_over(end, bits, readers, layer.out_channels)
        self._erase(node, links)
        return Folded("bits", [link.name for link in links])

    def _fold_steps(self, node: fx.Node, layer: PackedLayer, links: list[Link]) -> Folded:
        steps = [Step(AFFINE, (layer.scale.double(), layer.shift.double()))]
        residual: fx.Node | None = None
        taken: list[Link] = []
        for link in links:
            if link.steps is None or (link.residual is not None and residual is not None):
                break
            if len(merged([*steps, *link.steps])) > MOST_STEPS:
                break
            steps += link.steps
            residual = residual or link.residual
            taken.append(link)
        end = taken[-1].node if taken else node
        readers, threshold = self._readers(end, layer) if layer.plain else ([], None)
        steps = merged(steps)
        rows = rows_of(steps)
        output = "float"
        if threshold is not None:
            output = "both"
            rows = threshold.unsqueeze(0) if rows is None else torch.cat([rows, threshold[None]])
        layer.set_output(output, [step.code for step in steps], rows)
        with self.graph.inserting_after(end):
            arguments = (node.args[0],) if residual is None else (node.args[0], residual)
            y = self.graph.call_module(str(node.target), arguments)
        if threshold is not None:
            with self.graph.inserting_after(y):
                bits = self.graph.call_function(operator.getitem, (y, 1))
                y = self.graph.call_function(operator.getitem, (y, 0))
            self._hand_over(end, bits, readers, layer.out_channels)
        self.shapes[y] = self.shapes.get(end)
        end.replace_all_uses_with(y, delete_user_cb=lambda user: user is not y)
        self._erase(node, taken)
        return Folded(output, [link.name for link in taken])

    def _hand_over(
        self, value: fx.Node, bits: fx.Node, readers: Sequence[Reader], channels: int
    ) -> None:
        """Let the readers of a value read its signs."""
        for node, flat in readers:
            layer: Any = self.model.get_submodule(str(node.target))
            layer.set_packed_input()
            if flat is None:
                node.replace_input_with(value, bits)
                continue
            words_first(layer, channels)
            with self.graph.inserting_before(node):
                row = self.graph.call_method("flatten", (bits, 1))
            node.replace_input_with(flat, row)
            if not flat.users:
                self.graph.erase_node(flat)

    def _erase(self, node: fx.Node, links: Sequence[Link]) -> None:
        for dead in [*(link.node for link in reversed(links)), node]:
            self.graph.erase_node(dead)


def _threshold_row(layer: PackedLayer, channels: int, flat: bool) -> Tensor | None:
    """What each of the ``channels`` before a packed layer is compared with; None if it differs.

    Flattened, the words of an image are those of a row if the channels fill whole words.
    """
    inputs = layer.geometry.channels
    if inputs % channels != 0 if flat else inputs != channels:
        return None
    if flat and channels % WORD != 0:
        return None
    if layer.thresholds is None:
        return torch.zeros(channels, dtype=torch.float32)
    row = layer.thresholds.reshape(-1)
    if flat and row.numel() > 1:
        return None
    return row.expand(channels).clone()


def words_first(layer: PackedLinear, channels: int) -> None:
    """Lay out the weights of a linear layer for the words of an image, (words, places) flattened.

    The features were (channels, places) flattened.
    """
    k = layer.geometry.channels
    bits = unpack_bits(layer.weight, k)
    parts = bits.view(*bits.shape[:-1], channels // WORD, WORD, k // channels)
    layer.weight = pack_bits(parts.transpose(-1, -2).flatten(-3))
    layer.refresh()


def _takes_bits(layer: PackedLayer) -> bool:
    """Whether packed signs can stand for the layer's input."""
    g = layer.geometry
    one_plane = g.planes_x == 1 and not layer.packed_input and not layer.act_scale
    # Words do not go over the edge of a group.
    aligned = g.groups == 1 or g.channels // g.groups % WORD == 0
    return one_plane and aligned and getattr(layer, "padding_mode", "zeros") == "zeros"


def _packed_pool(pool: nn.MaxPool2d, flip: Tensor | None) -> PackedMaxPool2d:
    sizes: Any = (pool.kernel_size, pool.stride, pool.padding, pool.dilation)
    kernel, stride, padding, dilation = sizes
    return PackedMaxPool2d(kernel, stride, padding, dilation, pool.ceil_mode, flip)
