"""Layers that stay in float: their weights are quantized once, not in every call."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from lowbit.convert._trace import has_hooks
from lowbit.nn import (
    QConv1d,
    QConv2d,
    QConv3d,
    QConvTranspose1d,
    QConvTranspose2d,
    QConvTranspose3d,
    QEmbedding,
    QEmbeddingBag,
    QLinear,
    QuantizedLayer,
)

# By exact class: a subclass may do something else with its latent weight.
CONVOLUTIONS: dict[type, type[nn.Module]] = {
    QConv1d: nn.Conv1d,
    QConv2d: nn.Conv2d,
    QConv3d: nn.Conv3d,
}
TABLES = (QEmbedding, QEmbeddingBag)
KNOWN = (
    *CONVOLUTIONS,
    QLinear,
    QConvTranspose1d,
    QConvTranspose2d,
    QConvTranspose3d,
    *TABLES,
)


def frozen_twin(layer: QuantizedLayer) -> nn.Module | None:
    """The layer with the quantized weight in place of the latent one and of its quantizer.

    Without an input quantizer either, it is a layer of torch. In evaluation the outputs are the
    same: bit for bit those of ``_op``, and to rounding where the trained layer multiplies sums of
    signs by a scale. None where the quantized weight is not the same in every call, or where
    more than the weight hangs on its quantizer.
    """
    quantizer = layer.weight_quantization
    if quantizer is None or type(layer) not in KNOWN or has_hooks(layer) or quantizer.act_scale:
        return None
    if not quantizer.deterministic or any(has_hooks(m) for m in quantizer.modules()):
        return None
    if isinstance(layer, TABLES) and layer.max_norm is not None:  # looking up changes the weight
        return None
    with torch.no_grad():
        weight, again = layer._quantized_weight().clone(), layer._quantized_weight()
    if not torch.equal(weight, again):
        return None
    frozen = _torch_layer(layer) if layer.input_quantization is None else None
    frozen = layer if frozen is None else frozen
    frozen.weight = nn.Parameter(weight, requires_grad=layer.weight.requires_grad)
    if isinstance(frozen, QuantizedLayer):
        frozen.weight_quantization = None
    else:
        frozen.bias = layer.bias
    return frozen.train(layer.training)


def _torch_layer(layer: Any) -> nn.Module | None:
    """A layer of torch that computes ``_op``, without its weights; None where none does."""
    bias = layer.bias is not None if hasattr(layer, "bias") else False
    options: dict[str, Any] = {"bias": bias, "device": "meta", "dtype": layer.weight.dtype}
    if type(layer) is QLinear:
        return nn.Linear(layer.in_features, layer.out_features, **options)
    kind = CONVOLUTIONS.get(type(layer))
    padded = any(layer._reversed_padding_repeated_twice) if kind else False
    if kind is None or (padded and layer.pad_value != 0):
        return None
    for name in ("stride", "padding", "dilation", "groups", "padding_mode"):
        options[name] = getattr(layer, name)
    return kind(layer.in_channels, layer.out_channels, layer.kernel_size, **options)
