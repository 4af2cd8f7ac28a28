"""Models that torch.fx cannot follow: each layer is quantized by itself.

A layer observes its own input. Converted, it quantizes that input and returns float numbers, so
that what lies between the layers stays the model's own code.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from lowbit.convert._trace import has_hooks
from lowbit.convert.int8._layers import WEIGHTED, why_not


def observe_input(module: Any, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    """A hook: the layer's input as its observer hands it on."""
    return (module.input_observer(arguments[0]), *arguments[1:])


def prepare_islands(model: nn.Module, qconfig_of: Callable[[str], Any], *, training: bool) -> None:
    """An observer for the input of every layer with a qconfig; in training, rounded weights."""
    for name, layer in list(model.named_modules()):
        entry, qconfig = WEIGHTED.get(type(layer)), qconfig_of(name)
        if entry is None or qconfig is None or has_hooks(layer) or why_not(layer):
            continue
        layer.qconfig = qconfig
        if training:
            if entry.trained is None:
                continue
            trained = entry.trained.from_float(layer)
            for holder in model.modules():
                for key, child in list(holder._modules.items()):
                    if child is layer:
                        holder._modules[key] = trained
            layer = trained
        layer.input_observer = qconfig.activation()
        layer.register_forward_pre_hook(observe_input)


class Island(nn.Module):
    """An int8 layer between float ones: quantizes its input, returns float32, laid out as that."""

    def __init__(self, quantize: nn.Module, layer: nn.Module) -> None:
        super().__init__()
        self.quantize = quantize
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layer(self.quantize(x))
        return y.contiguous() if x.is_contiguous() else y
