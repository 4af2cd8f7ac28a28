"""Which values of a traced model are to be integers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import fx

from lowbit.convert._shapes import Shape
from lowbit.convert._trace import read_directly
from lowbit.convert.int8._kinds import Kind, clamp_of, is_sum, kind_of, tensors_read
from lowbit.convert.int8._layers import weighted


class Plan:
    """The operations that run on integers, and the values that need a scale.

    A layer with a qconfig runs in int8 and takes its input in int8. Any other operation does
    where all that it reads is in int8, and something after it wants it so: what only goes to
    float operations is left in float, which a layer gives without rounding.

    With stubs that holds for what follows a QuantStub, up to a DeQuantStub, which wants integers,
    so that what lies between is rounded as in torch.ao.
    """

    def __init__(
        self,
        model: fx.GraphModule,
        shapes: dict[fx.Node, Shape],
        qconfig_of: Callable[[str], Any],
    ) -> None:
        self.model, self.shapes, self.qconfig_of = model, shapes, qconfig_of
        self.nodes = list(model.graph.nodes)
        names = [type(module).__name__ for module in model.modules()]
        self.stubs = "QuantStub" in names
        self.kinds = {node: kind_of(node, model, self.stubs) for node in self.nodes}
        self.inside = self._between_stubs() if self.stubs else set(self.nodes)
        self.read_directly = read_directly(model.graph, model)
        self.able: set[fx.Node] = set()
        for node in self.nodes:
            if self._is_able(node):
                self.able.add(node)
        self.wanted: set[fx.Node] = set()
        for node in reversed(self.nodes):
            if any(self.reads_integers(user, node) for user in node.users):
                self.wanted.add(node)
        self.inner = self._inner_values()

    def _is_able(self, node: fx.Node) -> bool:
        kind = self.kinds[node]
        read = tensors_read(node, kind)
        if kind is Kind.QUANT:
            return True
        if kind is Kind.WEIGHTED:
            return self._is_chosen(node) and read[0] in self.inside
        if kind not in (Kind.SAME, Kind.OWN, Kind.FIXED) or not read:
            return False
        module = kind is Kind.OWN and node.op == "call_module"
        if module and self.qconfig_of(str(node.target)) is None:
            return False
        return all(self.available(value) for value in read)

    def available(self, value: fx.Node) -> bool:
        """Whether a value can be had in integers: int8 operations make it, or layers read it."""
        if value in self.able:
            return True
        if value not in self.inside or value.op == "get_attr":
            return False
        return any(
            self.kinds[user] is Kind.WEIGHTED and self._is_chosen(user) for user in value.users
        )

    def _is_chosen(self, node: fx.Node) -> bool:
        """Whether a layer has a qconfig, and ``forward`` does not read its weight by itself."""
        name = str(node.target)
        read = self.model.get_submodule(name) in self.read_directly
        return self.qconfig_of(name) is not None and not read

    def _between_stubs(self) -> set[fx.Node]:
        inside: set[fx.Node] = set()
        for node in self.nodes:
            kind = self.kinds[node]
            follows = any(source in inside for source in node.all_input_nodes)
            if kind is Kind.QUANT or (follows and kind is not Kind.DEQUANT):
                inside.add(node)
        return inside

    def reads_integers(self, user: fx.Node, value: fx.Node) -> bool:
        """Whether ``user`` runs in int8 on the integers of ``value``."""
        kind = self.kinds[user]
        if kind is Kind.DEQUANT:
            return value in self.able
        if kind is Kind.QUANT:
            return False  # quantizes float numbers
        if user not in self.able or value not in tensors_read(user, kind):
            return False
        return kind is Kind.WEIGHTED or user in self.wanted

    def runs_in_int8(self, node: fx.Node) -> bool:
        """Whether the operation itself works on integers."""
        return node in self.able and (self.kinds[node] is Kind.WEIGHTED or node in self.wanted)

    def _inner_values(self) -> set[fx.Node]:
        """Values inside of one kernel, which are never rounded: before a ReLU, before a sum."""
        inner: set[fx.Node] = set()
        for node in self.nodes:
            if not self.runs_in_int8(node):
                continue
            if clamp_of(node, self.model):
                source = node.args[0]
                assert isinstance(source, fx.Node)
                relu = clamp_of(node, self.model) == "relu"
                sums = relu and is_sum(source)
                if self._alone(source, node) and (self._is_layer(source) or sums):
                    inner.add(source)
            elif is_sum(node):
                inner.update(self.addend(node))
        return inner

    def addend(self, total: fx.Node) -> list[fx.Node]:
        """The layer, if there is one, that can add the other addend of a sum to its own sums."""
        addends = [arg for arg in total.args if isinstance(arg, fx.Node)]
        return [arg for arg in addends if self._is_addend(arg, total)][:1]

    def _alone(self, value: Any, user: fx.Node) -> bool:
        return self.runs_in_int8(value) and list(value.users) == [user]

    def _is_layer(self, value: fx.Node) -> bool:
        return self.kinds[value] is Kind.WEIGHTED

    def _is_addend(self, value: Any, total: fx.Node) -> bool:
        """Whether a layer adds the other addend to its sums: one that can, of the same shape."""
        if not self._alone(value, total) or not self._is_layer(value):
            return False
        entry = weighted(self.model.get_submodule(str(value.target)))
        other = total.args[1] if total.args[0] is value else total.args[0]
        shape = self.shapes.get(value)
        same_shape = shape is not None and shape == self.shapes.get(other)  # type: ignore[arg-type]
        return entry is not None and entry.add is not None and other is not value and same_shape

    def observed(self) -> dict[fx.Node, list[fx.Node]]:
        """The values that need a scale, and the operations that read them rounded."""
        found = {}
        for node in self.nodes:
            if node not in self.wanted or node in self.inner or self._keeps_scale(node):
                continue
            users = list(node.users)
            if not self.runs_in_int8(node):
                users = [user for user in users if self.reads_integers(user, node)]
            found[node] = users
        return found

    def _keeps_scale(self, node: fx.Node) -> bool:
        """Whether the value has the scale of what was read."""
        if self.kinds[node] is not Kind.SAME or not self.runs_in_int8(node):
            return False
        return node.args[0] not in self.inner
