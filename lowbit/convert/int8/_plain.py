"""Layers of lowbit without quantizers compute what torch's layers do, and become them."""

from __future__ import annotations

from typing import Any

from torch import nn

from lowbit import nn as qnn

PLAIN: dict[type, type[nn.Module]] = {
    qnn.QLinear: nn.Linear,
    qnn.QConv1d: nn.Conv1d,
    qnn.QConv2d: nn.Conv2d,
    qnn.QConv3d: nn.Conv3d,
    qnn.QConvTranspose1d: nn.ConvTranspose1d,
    qnn.QConvTranspose2d: nn.ConvTranspose2d,
    qnn.QConvTranspose3d: nn.ConvTranspose3d,
    qnn.QEmbedding: nn.Embedding,
    qnn.QEmbeddingBag: nn.EmbeddingBag,
}


def to_plain(model: nn.Module) -> None:
    """Make each layer that has no quantizers, and pads with 0 if at all, one of torch's, in place.

    Weights, hooks and names stay. A layer that cancels gradients stays while it trains.
    """
    for layer in model.modules():
        if type(layer) in PLAIN and _is_plain(layer):
            layer.__class__ = PLAIN[type(layer)]


_CONVS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


def numbers_for_padding(model: nn.Module) -> None:
    """Padding by name, "valid" or "same", becomes numbers where both sides get equal ones."""
    for layer in model.modules():
        if not isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Conv3d):
            continue
        if type(layer) not in _CONVS or not isinstance(layer.padding, str):
            continue
        spans = [d * (k - 1) for d, k in zip(layer.dilation, layer.kernel_size, strict=True)]
        if layer.padding == "valid":
            layer.padding = (0,) * len(spans)
        elif all(span % 2 == 0 for span in spans):
            layer.padding = tuple(span // 2 for span in spans)


def _is_plain(layer: Any) -> bool:
    quantizers = (layer.input_quantization, layer.weight_quantization)
    if any(quantizer is not None for quantizer in quantizers):
        return False
    if layer.training and layer.gradient_cancellation_threshold is not None:
        return False
    return getattr(layer, "pad_value", 0) in (None, 0) or not _pads(layer)


def _pads(layer: Any) -> bool:
    padding = layer.padding if isinstance(layer.padding, tuple) else (layer.padding,)
    return any(amount != 0 for amount in padding)
