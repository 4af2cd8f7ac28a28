"""Which layers are worth packing: where popcount would be slower than float, a layer stays."""

from __future__ import annotations

import math

from torch import nn
from torch.nn.modules.conv import _ConvNd

# Below these a float layer is the faster one: words are mostly padding, and packing the input
# costs more than the products save.
LEAST_CHANNELS = 16  # input channels of a group: a quarter of a word
LEAST_DEPTH = 64  # products for each output: channels of a group times taps
MOST_PLANES = 8  # binary products for each product: planes of inputs times planes of weights

PACK_ALL_THE_SAME = "(keep_slower=True packs it)"


def slower_than_float(layer: nn.Module, planes: int = 1) -> str:
    """Why packing the layer would not pay, or "".

    ``planes`` is the number of binary products that one of its products takes.
    """
    if isinstance(layer, nn.Embedding | nn.EmbeddingBag):
        return f"float is faster: packed rows are unpacked when looked up {PACK_ALL_THE_SAME}"
    if isinstance(layer, _ConvNd):
        channels, taps = layer.in_channels // layer.groups, math.prod(layer.kernel_size)
    elif isinstance(layer, nn.Linear):
        channels, taps = layer.in_features, 1
    else:
        return ""
    for has, what, least in (
        (channels, "input channels a group", LEAST_CHANNELS),
        (channels * taps, "products an output", LEAST_DEPTH),
    ):
        if has < least:
            return f"float is faster: {has} {what}, fewer than {least} {PACK_ALL_THE_SAME}"
    if planes > MOST_PLANES:
        return (
            f"float is faster: {planes} binary products for one, more than {MOST_PLANES} "
            f"{PACK_ALL_THE_SAME}"
        )
    return ""
