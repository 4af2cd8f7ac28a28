"""Layers that read what a QActivation quantized: they quantize themselves."""

from __future__ import annotations

import copy

from torch import fx, nn

from lowbit.convert._shapes import Shape
from lowbit.convert._trace import has_hooks
from lowbit.nn import QActivation, QuantizedLayer
from lowbit.quantizers import Quantizer

# What hands signs on as they are.
PASSING = (nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d, nn.Flatten)


def quantize_themselves(graph: fx.Graph, model: nn.Module, shapes: dict[fx.Node, Shape]) -> bool:
    """Give a layer without input quantizer that of the QActivation that it reads.

    This changes no value, and with it the layer can be packed. Signs may have gone through what
    hands them on: the sign of a sign is that sign. A QActivation that nothing else reads is then
    left out. A quantizer with a value for each channel is one of other channels where its axis is
    not the layer's, and stays. Returns whether a layer was led past its QActivation: then the
    graph alone is still the model, whose own forward would quantize twice.
    """
    led_past = False
    nodes = graph.find_nodes(op="call_module")
    for node in nodes:
        layer = model.get_submodule(str(node.target))
        if not isinstance(layer, QuantizedLayer) or layer.input_quantization is not None:
            continue
        if layer.weight_quantization is None:
            continue
        calls = [n for n in nodes if model.get_submodule(str(n.target)) is layer]
        direct = [_quantizer_of(n.args[0] if n.args else None, model) for n in calls]
        if len(calls) == 1 and direct[0] is not None:
            if not _has_axis_of(layer, direct[0], shapes.get(calls[0].args[0])):
                continue
            found: list[Quantizer | None] = direct
        else:
            found = [_source(n, model) for n in calls]
        if any(source is None for source in found):
            continue
        assert found[0] is not None
        layer.input_quantization = copy.deepcopy(found[0])
        layer.input_quantization.axis = _axis(layer)
        for call, quantizer in zip(calls, direct, strict=True):
            if quantizer is None:
                continue
            source = call.args[0]
            assert isinstance(source, fx.Node)
            call.replace_input_with(source, source.all_input_nodes[0])
            led_past = True
            if not source.users:
                graph.erase_node(source)
    return led_past


def _axis(layer: QuantizedLayer) -> int:
    """That of the channels of the layer's input, from the end."""
    kernel = getattr(layer, "kernel_size", ())
    return -1 - len(kernel)


def _has_axis_of(layer: QuantizedLayer, quantizer: Quantizer, shape: Shape) -> bool:
    """Whether the quantizer treats all channels alike, or those of the layer each by itself."""
    alike = all(t.numel() == 1 for t in quantizer.state_dict().values())
    if alike and not getattr(quantizer, "per_channel", False):
        return True
    axis = quantizer.axis
    if axis >= 0:
        if shape is None:
            return False
        axis -= len(shape)
    return axis == _axis(layer)


def _quantizer_of(value: object, model: nn.Module) -> Quantizer | None:
    """The quantizer by which a node alone made a value."""
    if not isinstance(value, fx.Node) or value.op != "call_module":
        return None
    module = model.get_submodule(str(value.target))
    if type(module) is not QActivation or has_hooks(module):
        return None
    return module.input_quantization


def _source(node: fx.Node, model: nn.Module) -> Quantizer | None:
    """The quantizer whose signs the node reads, if it reads signs."""
    value = node.args[0] if node.args else None
    while isinstance(value, fx.Node) and value.op == "call_module":
        quantizer = _quantizer_of(value, model)
        if quantizer is not None:
            return quantizer if quantizer.value_is_sign else None
        if type(model.get_submodule(str(value.target))) not in PASSING or not value.args:
            return None
        value = value.args[0]
    return None
