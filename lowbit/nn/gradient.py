"""Gradients that go back quantized."""

from __future__ import annotations

from torch import nn

from lowbit.nn._layer import QuantizedLayer
from lowbit.quantizers import Spec


def quantize_gradients(model: nn.Module, gradient_quantization: Spec) -> int:
    """Give all layers of ``model`` a quantizer of the gradient that comes back to their output.

    Each layer computes the gradients to its input, weight and bias from ``q(gradient)``, with a
    ``q`` of its own; ``None`` takes them away. Outputs and checkpoints stay what they are. Layers
    are those of this package with a weight and an input to quantize: a model's float first and
    last layer keep their gradients, as DoReFa-Net has it. Returns how many layers there are.

    Raises ``ValueError`` for a quantizer with parameters or buffers.

    Source: DoReFa-Net, Zhou et al. 2016, section 2.5 (``fg`` of tensorpack's ``dorefa.py``).

    >>> import lowbit
    >>> model = lowbit.models.MLP(1, 10, 8, (32, 32), weight_quantization="sign")
    >>> quantize_gradients(model, {"name": "dorefa_gradient", "bits": 4})
    1
    """
    layers = [
        module
        for module in model.modules()
        if isinstance(module, QuantizedLayer) and module.output_layout is not None
    ]
    for layer in layers:
        layer.set_gradient_quantization(gradient_quantization)
    return len(layers)
