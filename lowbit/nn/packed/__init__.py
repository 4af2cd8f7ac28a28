"""Layers on bits: what trained layers with few values become for inference."""

from __future__ import annotations

from lowbit.nn._layer import QuantizedLayer
from lowbit.nn.conv import QConv1d, QConv2d, QConv3d
from lowbit.nn.conv_transpose import _QConvTranspose
from lowbit.nn.embedding import QEmbedding, QEmbeddingBag
from lowbit.nn.linear import QLinear
from lowbit.nn.packed._errors import CannotPack
from lowbit.nn.packed._layer import PackedLayer
from lowbit.nn.packed.conv import PackedConv1d, PackedConv2d, PackedConv3d
from lowbit.nn.packed.embedding import PackedEmbedding, PackedEmbeddingBag
from lowbit.nn.packed.linear import PackedLinear
from lowbit.nn.packed.pool import PackedMaxPool2d

PACKED: dict[type[QuantizedLayer], type[PackedLayer]] = {
    QConv1d: PackedConv1d,
    QConv2d: PackedConv2d,
    QConv3d: PackedConv3d,
    QLinear: PackedLinear,
}


# Tables are looked up and not multiplied: no geometry, no kernel.
TABLES: dict[type[QuantizedLayer], type[PackedEmbedding] | type[PackedEmbeddingBag]] = {
    QEmbedding: PackedEmbedding,
    QEmbeddingBag: PackedEmbeddingBag,
}


def from_trained(layer: QuantizedLayer) -> PackedLayer:
    """The packed layer that returns what a trained layer returns in evaluation.

    Raises ``CannotPack`` with the reason where there is none.
    """
    for trained, packed in PACKED.items():
        if isinstance(layer, trained):
            return packed.from_trained(layer)
    for trained, table in TABLES.items():
        if isinstance(layer, trained):
            raise CannotPack(
                f"{trained.__name__} is looked up, not multiplied: {table.__name__}.from_trained "
                "keeps it in bits"
            )
    if isinstance(layer, _QConvTranspose):
        raise CannotPack(
            "a transposed convolution adds each input to many outputs, which has no kernel here: "
            "use an upsampling and a convolution"
        )
    raise CannotPack(f"{type(layer).__name__} has no packed form")


__all__ = [
    "CannotPack",
    "PackedConv1d",
    "PackedConv2d",
    "PackedConv3d",
    "PackedEmbedding",
    "PackedEmbeddingBag",
    "PackedLayer",
    "PackedLinear",
    "PackedMaxPool2d",
    "from_trained",
]
