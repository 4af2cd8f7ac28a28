"""First weights as BinaryConnect and BNN draw them."""

from __future__ import annotations

from torch import nn

from experiments.callbacks.weight_clip import glorot
from lowbit.nn import QuantizedLayer

LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


def spread_weights(model: nn.Module, spread: float) -> None:
    """Draw the weights of linear and convolutional layers from (-spread H, spread H).

    H is 1 in layers with a weight quantizer, and sqrt(1.5 / (fan_in + fan_out)) in the others.
    """
    for module in model.modules():
        if isinstance(module, LAYERS):
            quantized = (
                isinstance(module, QuantizedLayer) and module.weight_quantization is not None
            )
            bound = spread * (1.0 if quantized else glorot(module.weight))
            nn.init.uniform_(module.weight, -bound, bound)
