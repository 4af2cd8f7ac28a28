"""From an observed graph to the one that runs on integers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import fx, nn

from lowbit.convert.int8._kinds import (
    Kind,
    clamp_of,
    is_cat,
    is_product,
    is_sum,
    kind_of,
    tensors_read,
)
from lowbit.convert.int8._layers import OWN_SCALE_BETWEEN_STUBS, weighted
from lowbit.convert.int8._made import Made, check_seen, int8_layer, scale_of
from lowbit.convert.int8._normalise import free_name, replace_call
from lowbit.functional import int8
from lowbit.nn import quantized as nnq
from lowbit.qconfig import default_quint8_weight_qconfig

_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "relu": F.relu,
    "relu_": F.relu,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
}


class Lowering:
    """Replaces what the observers of a prepared ``model`` stand around, in place.

    An observer says that its value is an int8 one. Layers that read such a value become int8
    layers; where an observer follows, they give integers of its scale, with the ReLU or the sum
    between inside, and float32 elsewhere. What has no int8 form reads dequantized numbers.
    ``made`` has what became of each layer, by name.
    """

    def __init__(self, model: fx.GraphModule) -> None:
        self.model, self.graph = model, model.graph
        names = [type(module).__name__ for module in model.modules()]
        self.stubs = "QuantStub" in names
        calls = self.graph.find_nodes(op="call_module")
        self.calls = Counter(str(node.target) for node in calls)
        self.integers: set[fx.Node] = set()  # values that are QTensors
        self.pending: set[fx.Node] = set()  # layers that read one, and are not replaced yet
        self.made: dict[str, Made] = {}

    def run(self) -> dict[str, Made]:
        """Lower the whole graph."""
        for node in list(self.graph.nodes):
            if self._is_observer(node):
                self._observed(node)
            else:
                self._other(node)
        for node in list(self.graph.nodes):
            if node in self.pending:
                self._to_float(node)
        self._dequantize()
        self._drop_stubs()
        self._reshape()
        self._methods_as_functions()
        self.graph.eliminate_dead_code()
        self.graph.lint()
        self.model.delete_all_unused_submodules()
        self.model.recompile()
        return self.made

    def _module(self, node: fx.Node) -> Any:
        return self.model.get_submodule(str(node.target))

    def _is_observer(self, node: fx.Node) -> bool:
        return _is_observer(node, self.model)

    def _kind(self, node: fx.Node) -> Kind:
        return kind_of(node, self.model, self.stubs)

    def _reads_integers(self, node: fx.Node, kind: Kind) -> bool:
        read = tensors_read(node, kind)
        return bool(read) and all(value in self.integers for value in read)

    def _other(self, node: fx.Node) -> None:
        kind = self._kind(node)
        if kind is Kind.WEIGHTED and self._reads_integers(node, kind):
            self.pending.add(node)
        elif kind is Kind.SAME and self._reads_integers(node, kind):
            self.integers.add(node)

    # An observer, and what it follows.

    def _observed(self, node: fx.Node) -> None:
        value, observer = node.args[0], self._module(node)
        assert isinstance(value, fx.Node)
        if value in self.integers:  # a stub inside of integers asks twice
            node.replace_all_uses_with(value)
            self.graph.erase_node(node)
            return
        made = None
        if list(value.users) == [node]:
            made = self._fused(value, node, observer) or self._own(value, node, observer)
        if made is None:
            name = free_name(self.model, f"{_stem(str(node.target))}_quantize")
            self.model.add_submodule(name, quantize(observer, str(node.target)))
            made = replace_call(self.graph, node, name, (value,))
        self.integers.add(made)

    def _fused(self, value: fx.Node, node: fx.Node, observer: Any) -> fx.Node | None:
        """A layer in one kernel with the sum and the ReLU after it."""
        clamp = clamp_of(value, self.model)
        source = value.args[0] if clamp else value
        if not isinstance(source, fx.Node) or (clamp and list(source.users) != [value]):
            return None
        names = [_name(value, self.model)] if clamp else []
        if source in self.pending:
            call = self._call(source, node, observer, clamp, None, names)
        elif is_sum(source) and clamp != "relu6":
            sum_call = self._sum(source, node, observer, bool(clamp), names)
            if sum_call is None:
                return None
            call = sum_call
        else:
            return None
        for dead in dict.fromkeys((value, source)):
            self.pending.discard(dead)
            self.graph.erase_node(dead)
        return call

    def _sum(
        self, total: fx.Node, node: fx.Node, observer: Any, relu: bool, names: list[str]
    ) -> fx.Node | None:
        addends = [arg for arg in total.args if isinstance(arg, fx.Node)]
        layers = [arg for arg in addends if arg in self.pending]
        if not layers and all(arg in self.integers for arg in addends):
            kind = nnq.AddReLU if relu else nnq.Add
            return self._operation(total, node, observer, kind, tuple(addends))
        if len(layers) != 1 or list(layers[0].users) != [total]:
            return None
        layer = layers[0]
        other = addends[1] if addends[0] is layer else addends[0]
        entry = weighted(self._module(layer))
        if other not in self.integers or entry is None or entry.add is None:
            return None
        clamp = "relu" if relu else ""
        call = self._call(layer, node, observer, clamp, other, ["add", *names])
        # Erased by hand: its user is the sum, which goes next.
        total.replace_input_with(layer, other)
        self.pending.discard(layer)
        self.graph.erase_node(layer)
        return call

    def _call(
        self,
        layer: fx.Node,
        node: fx.Node,
        observer: Any,
        clamp: str,
        residual: fx.Node | None,
        names: list[str],
    ) -> fx.Node:
        """An int8 layer's call in the place of the observer's.

        Rounding keeps order, so that clamping the integers is as good as clamping before. A
        ReLU6 does nothing where the integers end at 6.
        """
        observed, entry = str(node.target), weighted(self._module(layer))
        assert entry is not None
        inside = residual is not None or entry.relu is not None
        inside = inside and (clamp != "relu6" or _within(observer, observed, 6.0))
        module = int8_layer(
            self._module(layer), observer, bool(clamp) and inside, residual is not None, observed
        )
        name = self._put(layer, module, names)
        arguments = (layer.args[0],) if residual is None else (layer.args[0], residual)
        call = replace_call(self.graph, node, name, arguments)
        if not clamp or inside:
            return call
        self.integers.add(call)
        with self.graph.inserting_after(call):
            function = F.relu if clamp == "relu" else F.relu6
            clamped = self.graph.call_function(function, (call,))
        call.replace_all_uses_with(clamped, delete_user_cb=lambda user: user is not clamped)
        return clamped

    def _own(self, value: fx.Node, node: fx.Node, observer: Any) -> fx.Node | None:
        """An operation whose output has a scale of its own."""
        kind = self._kind(value)
        if kind not in (Kind.OWN, Kind.FIXED) or not self._reads_integers(value, kind):
            return None
        call: fx.Node | None = None
        if kind is Kind.FIXED:  # the integers bring the scale with them
            node.replace_all_uses_with(value)
            self.graph.erase_node(node)
            return value
        if is_product(value):
            call = self._operation(value, node, observer, nnq.Mul, value.args)
        elif is_cat(value):
            dim = value.kwargs.get("dim", value.args[1] if len(value.args) > 1 else 0)
            call = self._operation(value, node, observer, nnq.Cat, (value.args[0],), dim=dim)
        elif value.op == "call_module":
            module = self._module(value)
            module.activation_post_process = observer
            if type(module) is nn.PReLU:  # its slope is uint8, whatever weights are
                setattr(module, "qconfig", default_quint8_weight_qconfig)  # noqa: B010
            check_seen(observer, str(node.target))
            made = OWN_SCALE_BETWEEN_STUBS[type(module)].from_float(module)
            del module.activation_post_process
            call = replace_call(self.graph, node, self._put(value, made, []), value.args)
        if call is not None:
            self.graph.erase_node(value)
        return call

    def _operation(
        self,
        value: fx.Node,
        node: fx.Node,
        observer: Any,
        kind: type[Any],
        arguments: Any,
        **more: Any,
    ) -> fx.Node:
        scale, zero_point, limits = scale_of(observer, str(node.target))
        module = kind(scale, zero_point, **more)
        module.limits = limits
        name = free_name(self.model, value.name)
        self.model.add_submodule(name, module)
        return replace_call(self.graph, node, name, tuple(arguments))

    def _put(self, node: fx.Node, module: nn.Module, names: list[str]) -> str:
        """Hold a module under the name of what the node called, or a free one if others call it."""
        name = str(node.target)
        if self.calls[name] > 1:
            name = free_name(self.model, name.replace(".", "_"))
            self.model.add_submodule(name, module)
        else:
            self.model.set_submodule(name, module)
        output = "float" if getattr(module, "out_dtype", None) == torch.float32 else "int8"
        self.made[name] = Made(str(node.target), module, output, names)
        return name

    # What is left.

    def _to_float(self, node: fx.Node) -> None:
        """A layer whose output nothing reads in integers; a sum and a ReLU after it inside."""
        if self._sum_to_float(node):
            return
        users = list(node.users)
        relu = len(users) == 1 and clamp_of(users[0], self.model) == "relu"
        entry = weighted(self._module(node))
        relu = relu and entry is not None and entry.relu is not None
        names = [_name(users[0], self.model)] if relu else []
        module = int8_layer(self._module(node), None, relu, False, "")
        if relu:
            users[0].replace_all_uses_with(node)
            self.graph.erase_node(users[0])
        replace_call(self.graph, node, self._put(node, module, names), (node.args[0],))

    def _sum_to_float(self, node: fx.Node) -> bool:
        """The same with the other addend of a sum, an int8 value of the same shape."""
        layer, users = self._module(node), list(node.users)
        if not layer.__dict__.get("adds_alike") or len(users) != 1 or not is_sum(users[0]):
            return False
        total = users[0]
        other = total.args[1] if total.args[0] is node else total.args[0]
        if other not in self.integers:
            return False
        after = list(total.users)
        relu = len(after) == 1 and clamp_of(after[0], self.model) == "relu"
        last = after[0] if relu else total
        names = ["add", *([_name(last, self.model)] if relu else [])]
        module = int8_layer(layer, None, relu, True, "")
        name, arguments = self._put(node, module, names), (node.args[0], other)
        replace_call(self.graph, last, name, arguments)
        if relu:
            self.graph.erase_node(total)
        self.graph.erase_node(node)
        return True

    def _dequantize(self) -> None:
        """Give float operations float numbers."""
        for value in list(self.graph.nodes):
            if value not in self.integers:
                continue
            readers = [user for user in value.users if not self._takes_integers(user)]
            if not readers:
                continue
            name = free_name(self.model, f"{_stem(value.name)}_dequantize")
            self.model.add_submodule(name, nnq.DeQuantize())
            with self.graph.inserting_after(value):
                real = self.graph.call_module(name, (value,))
            for user in readers:
                user.replace_input_with(value, real)

    def _takes_integers(self, user: fx.Node) -> bool:
        if user in self.integers:
            return True
        if user.op == "call_module":
            return type(self._module(user)).__module__.startswith("lowbit.nn.quantized")
        return self._kind(user) is Kind.QUERY

    def _reshape(self) -> None:
        """Images come channels last in memory, where a view that flattens them needs a copy."""
        for node in self.graph.find_nodes(op="call_method", target="view"):
            if not any(isinstance(arg, torch.dtype) for arg in node.args):
                node.target = "reshape"

    def _methods_as_functions(self) -> None:
        """x.relu() of integers, x.sigmoid(): a QTensor has the functions alone.

        torch.nn.functional.sigmoid and tanh are traced as the methods, which they call.
        """
        for node in self.integers:
            if node.op == "call_method" and node.target in _FUNCTIONS:
                node.op, node.target = "call_function", _FUNCTIONS[str(node.target)]

    def _drop_stubs(self) -> None:
        for node in list(self.graph.nodes):
            if self._kind(node) in (Kind.QUANT, Kind.DEQUANT):
                node.replace_all_uses_with(node.args[0])
                self.graph.erase_node(node)


def is_observed(model: nn.Module) -> bool:
    """Whether a model is a graph with observers in it."""
    if not isinstance(model, fx.GraphModule):
        return False
    return any(_is_observer(node, model) for node in model.graph.find_nodes(op="call_module"))


def _is_observer(node: fx.Node, model: nn.Module) -> bool:
    if node.op != "call_module":
        return False
    return hasattr(model.get_submodule(str(node.target)), "calculate_qparams")


def quantize(observer: Any, name: str) -> nn.Module:
    """The module that quantizes with an observer's scale and zero point."""
    scale, zero_point, limits = scale_of(observer, name)
    module = nnq.Quantize(scale, zero_point, observer.dtype)
    module.limits = limits
    return module


def _within(observer: Any, name: str, top: float) -> bool:
    """Whether no integer of the observer's range stands for more than ``top``, or less than 0."""
    scale, zero_point, limits = scale_of(observer, name)
    low, high = limits or int8.limits(int8.plain_dtype(observer.dtype))
    return low >= zero_point and (high - zero_point) * scale <= top + 0.5 * scale


def _stem(name: str) -> str:
    return name.removesuffix("_observer").replace(".", "_")


def _name(node: fx.Node, model: nn.Module) -> str:
    return str(node.target) if node.op == "call_module" else clamp_of(node, model) or node.name
