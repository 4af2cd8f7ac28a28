"""Float layers, and what training and inference in int8 make of them. By exact class."""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import nn
from torch.nn.utils.parametrize import type_before_parametrizations

from lowbit.nn import qat
from lowbit.nn import quantized as nnq


class Weighted(NamedTuple):
    """A layer of sums of products.

    int8, relu, add, add_relu   quantized modules: alone, before a ReLU, before an addition
    trained, trained_norm       its layers for quantization-aware training: alone, and with ``norm``
    norm                        the batch norm that folds into it
    """

    int8: type[Any]
    relu: type[Any] | None = None
    trained: type[Any] | None = None
    norm: type[nn.Module] | None = None
    trained_norm: type[Any] | None = None
    add: type[Any] | None = None
    add_relu: type[Any] | None = None


WEIGHTED: dict[type, Weighted] = {
    nn.Linear: Weighted(nnq.Linear, nnq.LinearReLU, qat.Linear, nn.BatchNorm1d, qat.LinearBn1d),
    nn.Conv1d: Weighted(nnq.Conv1d, nnq.ConvReLU1d, qat.Conv1d, nn.BatchNorm1d, qat.ConvBn1d),
    nn.Conv2d: Weighted(
        nnq.Conv2d,
        nnq.ConvReLU2d,
        qat.Conv2d,
        nn.BatchNorm2d,
        qat.ConvBn2d,
        nnq.ConvAdd2d,
        nnq.ConvAddReLU2d,
    ),
    nn.Conv3d: Weighted(nnq.Conv3d, nnq.ConvReLU3d, qat.Conv3d, nn.BatchNorm3d, qat.ConvBn3d),
    nn.ConvTranspose1d: Weighted(nnq.ConvTranspose1d, norm=nn.BatchNorm1d),
    nn.ConvTranspose2d: Weighted(nnq.ConvTranspose2d, norm=nn.BatchNorm2d),
    nn.ConvTranspose3d: Weighted(nnq.ConvTranspose3d, norm=nn.BatchNorm3d),
}
# Their layers for training are known by the float layer that they are made of.
_TRAINED = {
    kind: entry
    for entry in WEIGHTED.values()
    for kind in (entry.trained, entry.trained_norm)
    if kind is not None
}

# Functions of each number, or with running statistics, whose output has a scale of its own.
OWN_SCALE: dict[type, type[Any]] = {
    nn.Hardswish: nnq.Hardswish,
    nn.ELU: nnq.ELU,
    nn.LeakyReLU: nnq.LeakyReLU,
    nn.PReLU: nnq.PReLU,
    nn.BatchNorm2d: nnq.BatchNorm2d,
    nn.BatchNorm3d: nnq.BatchNorm3d,
}
# Those that int8 makes neither faster nor smaller: between stubs only, where it was asked for.
OWN_SCALE_BETWEEN_STUBS: dict[type, type[Any]] = {
    **OWN_SCALE,
    nn.LayerNorm: nnq.LayerNorm,
    nn.GroupNorm: nnq.GroupNorm,
    nn.InstanceNorm1d: nnq.InstanceNorm1d,
    nn.InstanceNorm2d: nnq.InstanceNorm2d,
    nn.InstanceNorm3d: nnq.InstanceNorm3d,
    nn.Softmax: nnq.Softmax,
}

# Weights alone, looked up: only where a qconfig names them.
EMBEDDINGS: dict[type, tuple[type[Any], type[Any]]] = {
    nn.Embedding: (nnq.Embedding, qat.Embedding),
    nn.EmbeddingBag: (nnq.EmbeddingBag, qat.EmbeddingBag),
    qat.Embedding: (nnq.Embedding, qat.Embedding),
    qat.EmbeddingBag: (nnq.EmbeddingBag, qat.EmbeddingBag),
}


def weighted(module: nn.Module) -> Weighted | None:
    """The entry of a float layer, or of its layer for training; None for all others."""
    kind = type_before_parametrizations(module)
    return WEIGHTED.get(kind) or _TRAINED.get(kind)


def why_not(module: nn.Module) -> str:
    """Why a weighted layer has no int8 form, or ""."""
    padding = getattr(module, "padding", 0)
    if isinstance(padding, str):
        return f"padding={padding!r}: give it in numbers"
    mode = getattr(module, "padding_mode", "zeros")
    if mode not in ("zeros", "reflect"):
        return f"padding_mode={mode!r}: int8 has zeros and reflect"
    return ""
