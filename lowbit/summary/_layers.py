"""What a module is to the summary: its weights, their bits, and the numbers that it keeps."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd
from torch.nn.utils.rnn import PackedSequence

from lowbit.convert._norm import FrozenNorm
from lowbit.nn import QActivation, QuantizedLayer
from lowbit.nn.packed import PackedEmbedding, PackedEmbeddingBag, PackedLayer
from lowbit.nn.qat._layer import QatLayer
from lowbit.nn.quantized import Embedding
from lowbit.nn.quantized._weighted import WeightedModule
from lowbit.nn.quantized.dynamic._base import DynamicLayer, OneMatrix
from lowbit.observers._switches import FakeQuantizeBase
from lowbit.quantizers import Quantizer

# What is inside these belongs to them: quantizers, observers, parametrizations.
WHOLE = (
    QuantizedLayer,
    QActivation,
    Quantizer,
    QatLayer,
    PackedLayer,
    WeightedModule,
    DynamicLayer,
    _ConvNd,
    nn.Linear,
    nn.RNNBase,
    nn.RNNCellBase,
    FakeQuantizeBase,
)
PACKED_TABLES = (PackedEmbedding, PackedEmbeddingBag)


class Weights(NamedTuple):
    """The weights of one layer, and how often each is multiplied in a call.

    total  how many there are
    per    "output": once for each place of the output; "input": of the input (transposed
           convolutions); "step": for each step of each sequence; "none": looked up
    axis   of the channels, which places do not run along
    """

    total: int
    per: str = "output"
    axis: int = -1

    def products(self, x: Any, y: Any) -> int:
        """Multiply-adds of a call that gave y for x."""
        if self.per == "none":
            return 0
        tensor = y if self.per == "output" else x
        if isinstance(tensor, PackedSequence):
            tensor = tensor.data
        if isinstance(tensor, tuple | list):
            tensor = tensor[0]
        channels = tensor.shape[self.axis]
        return self.total * (tensor.numel() // channels) if channels else 0


def weights_of(module: Any) -> Weights | None:
    """The weights of a layer; None for a module whose products, if any, are seen as they run."""
    if isinstance(module, PackedLayer):
        g = module.geometry
        count = module.out_channels * (g.channels // g.groups) * g.taps
        return Weights(count, axis=-1 - getattr(module, "dims", 0))
    if isinstance(module, _ConvNd):
        return _convolution(module, module.weight)
    if isinstance(module, nn.Linear):
        return Weights(module.weight.numel())
    if isinstance(module, WeightedModule):
        return _convolution(module, module._weight)
    if isinstance(module, OneMatrix):
        return _convolution(module, module.params.weight)
    if isinstance(module, DynamicLayer):
        return Weights(sum(p.weight.numel() for _, p in module._every()), "step")
    if isinstance(module, nn.RNNBase | nn.RNNCellBase):
        return Weights(sum(p.numel() for p in module.parameters() if p.ndim > 1), "step")
    if isinstance(module, nn.Embedding | nn.EmbeddingBag):
        return Weights(module.weight.numel(), "none")
    if isinstance(module, (*PACKED_TABLES, Embedding)):
        return Weights(module.num_embeddings * module.embedding_dim, "none")
    return None


def _convolution(module: Any, weight: Tensor) -> Weights:
    """Of a convolution, or of a linear layer, which has no places within an example."""
    axis = -1 - len(getattr(module, "kernel_size", ()))
    return Weights(
        weight.numel(), "input" if getattr(module, "transposed", False) else "output", axis
    )


def bits_of(module: Any, x: torch.dtype | None) -> tuple[int | None, int | None]:
    """Bits of an input and of a weight, as the products take them; None where there is none.

    ``x``: the dtype that came in; what an activation before it did to it is not known here.
    """
    reads = float_bits(x)
    if isinstance(module, PackedLayer):
        return module.geometry.planes_x, module.geometry.planes_w
    if isinstance(module, PACKED_TABLES):
        return None, 1
    if isinstance(module, Embedding):
        return None, module.bits
    if isinstance(module, WeightedModule):
        return 8, 8
    if isinstance(module, DynamicLayer):
        dtypes = {params.dtype for _, params in module._every()}
        return (8, 8) if dtypes == {torch.int8} else (reads, 16)
    weights = weights_of(module)
    if weights is None:
        return None, None
    weight = float_bits(next(iter(module.parameters())).dtype)
    if isinstance(module, QatLayer):
        weight = getattr(module.weight_fake_quant, "bits", weight)
    elif isinstance(module, QuantizedLayer):
        if module.weight_quantization is not None:
            weight = min(module.weight_quantization.bits, weight or 32)
        if module.input_quantization is not None:
            reads = min(module.input_quantization.bits, reads or 32)
    return None if weights.per == "none" else reads, weight


def float_bits(dtype: torch.dtype | None) -> int | None:
    """Bits of one number of a floating dtype; None for others."""
    return 8 * dtype.itemsize if dtype is not None and dtype.is_floating_point else None


def kept_numbers(module: Any) -> int:
    """How many numbers of a converted layer were parameters of the trained one."""
    weights = weights_of(module)
    if isinstance(module, PackedLayer):
        assert weights is not None
        others = (b for n, b in module.named_buffers() if n not in ("weight", "panel"))
        return weights.total + sum(b.numel() for b in others)
    if isinstance(module, FrozenNorm):
        return 2 * len(module.weight)
    if isinstance(module, PACKED_TABLES):
        assert weights is not None
        return weights.total + module.levels.numel()
    if isinstance(module, Embedding):
        assert weights is not None
        return weights.total
    if isinstance(module, WeightedModule):
        return module._weight.numel() + (0 if module._bias is None else module._bias.numel())
    if isinstance(module, DynamicLayer):
        matrices = [params for _, params in module._every()]
        biases = sum(p.bias.numel() for p in matrices if p.bias is not None)
        return sum(p.weight.numel() for p in matrices) + biases
    return 0


def norm_numbers(module: Any) -> int:
    """Two for each channel of a batch norm without parameters: it computes with its statistics."""
    if isinstance(module, _BatchNorm) and not module.affine:
        return 2 * module.num_features
    return 0


def layers_of(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Paths and modules, without what is inside those that are whole."""
    inside: list[str] = []
    for name, module in model.named_modules():
        if any(name.startswith(prefix) for prefix in inside):
            continue
        yield name, module
        if isinstance(module, WHOLE):
            inside.append(f"{name}." if name else "")
