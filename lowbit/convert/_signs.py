"""Layers that read the signs of a QActivation: they take signs themselves."""

from __future__ import annotations

import copy

from torch import fx, nn

from lowbit.nn import QActivation, QuantizedLayer
from lowbit.quantizers import Quantizer

# What hands signs on as they are.
PASSING = (nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d, nn.Flatten)


def read_signs_themselves(graph: fx.Graph, model: nn.Module) -> None:
    """Give a layer without input quantizer the sign of the QActivation that it reads.

    The sign of a sign is that sign, so this changes no value; with it the layer can be packed.
    A QActivation that nothing else reads is then left out.
    """
    nodes = graph.find_nodes(op="call_module")
    for node in nodes:
        layer = model.get_submodule(str(node.target))
        if not isinstance(layer, QuantizedLayer) or layer.input_quantization is not None:
            continue
        calls = [n for n in nodes if model.get_submodule(str(n.target)) is layer]
        found = [_source(n, model) for n in calls]
        if layer.weight_quantization is None or any(source is None for source in found):
            continue
        assert found[0] is not None
        layer.input_quantization = copy.deepcopy(found[0])
        for call in calls:
            source = call.args[0]
            if isinstance(source, fx.Node) and _sign_of(source, model) is not None:
                call.replace_input_with(source, source.all_input_nodes[0])
                if not source.users:
                    graph.erase_node(source)


def _sign_of(node: fx.Node, model: nn.Module) -> Quantizer | None:
    """The quantizer to plain signs that the node applies."""
    if node.op != "call_module":
        return None
    module = model.get_submodule(str(node.target))
    if type(module) is not QActivation or module._forward_hooks or module._forward_pre_hooks:
        return None
    quantizer = module.input_quantization
    return quantizer if quantizer is not None and quantizer.value_is_sign else None


def _source(node: fx.Node, model: nn.Module) -> Quantizer | None:
    """The quantizer whose signs the node reads, if it reads signs."""
    value = node.args[0] if node.args else None
    while isinstance(value, fx.Node) and value.op == "call_module":
        quantizer = _sign_of(value, model)
        if quantizer is not None:
            return quantizer
        if type(model.get_submodule(str(value.target))) not in PASSING or not value.args:
            return None
        value = value.args[0]
    return None
