"""Packed embeddings: tables of two values, a bit for each."""

from __future__ import annotations

from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lowbit.functional.packing import pack_bits, unpack_bits, words_for
from lowbit.nn.embedding import QEmbedding, QEmbeddingBag
from lowbit.nn.packed._errors import CannotPack
from lowbit.nn.packed._weights import quantized


class _PackedTable(nn.Module):
    """A table of ``num_embeddings`` rows with two values each.

    ``words`` int64 (rows, words_for(embedding_dim)): 1 for the row's smaller value; ``levels``
    (rows, 2) or, where all rows have the same, (1, 2): the larger value and the smaller.
    """

    words: Tensor
    levels: Tensor

    def __init__(self, num_embeddings: int, embedding_dim: int, *, per_row: bool = True) -> None:
        super().__init__()
        self.num_embeddings = num_embeddings
        self.embedding_dim = embedding_dim
        words = torch.zeros(num_embeddings, words_for(embedding_dim), dtype=torch.int64)
        self.register_buffer("words", words)
        self.register_buffer("levels", torch.zeros(num_embeddings if per_row else 1, 2))

    @staticmethod
    def _coded(layer: QEmbedding | QEmbeddingBag) -> tuple[Tensor, Tensor]:
        """Words and levels of a trained table; raises ``CannotPack`` where it has no two."""
        if layer.max_norm is not None:
            raise CannotPack("max_norm changes the table whenever it is read: train without it")
        w = quantized(layer.weight_quantization, layer.weight).to(layer.weight.dtype)
        if w.numel() == 0:
            raise CannotPack("the table is empty")
        high, low = w.amax(1, keepdim=True), w.amin(1, keepdim=True)
        smaller = w != high
        if bool((smaller & (w != low)).any()):
            raise CannotPack("the table has more than two values in a row")
        # A row of one value may have any other: that which most tables have.
        high, low = torch.maximum(high, -high), torch.where(smaller.any(1, True), low, -high.abs())
        smaller = w == low
        levels = torch.cat([high, low], 1)
        if bool((levels == levels[:1]).all()):
            levels = levels[:1].clone()
        return pack_bits(smaller), levels

    def rows(self, indices: Tensor) -> Tensor:
        """The rows of these indices: (*) -> (*, embedding_dim) in the dtype of ``levels``."""
        # torch's look-up raises IndexError for -1, which indexing takes for the last row.
        bits = unpack_bits(F.embedding(indices, self.words), self.embedding_dim)
        levels = F.embedding(indices, self.levels) if len(self.levels) > 1 else self.levels[0]
        return torch.where(bits, levels[..., 1:], levels[..., :1])

    def extra_repr(self) -> str:
        per_row = "" if len(self.levels) > 1 else ", per_row=False"
        return f"{self.num_embeddings}, {self.embedding_dim}{per_row}"


class PackedEmbedding(_PackedTable):
    """``QEmbedding`` on bits: indices (*) -> (*, embedding_dim), the very values of the table."""

    @classmethod
    def from_trained(cls, layer: QEmbedding) -> Self:
        """The packed table that returns what ``layer`` does in evaluation, or ``CannotPack``."""
        words, levels = cls._coded(layer)
        packed = cls(layer.num_embeddings, layer.embedding_dim, per_row=len(levels) > 1)
        packed.words, packed.levels = words, levels
        return packed.train(layer.training)

    def forward(self, indices: Tensor) -> Tensor:
        return self.rows(indices)


class PackedEmbeddingBag(_PackedTable):
    """``QEmbeddingBag`` on bits: sums, means or maxima of the rows that are looked up."""

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        *,
        per_row: bool = True,
        mode: str = "mean",
        include_last_offset: bool = False,
        padding_idx: int | None = None,
    ) -> None:
        super().__init__(num_embeddings, embedding_dim, per_row=per_row)
        self.mode = mode
        self.include_last_offset = include_last_offset
        self.padding_idx = padding_idx

    @classmethod
    def from_trained(cls, layer: QEmbeddingBag) -> Self:
        """The packed table that returns what ``layer`` does in evaluation, or ``CannotPack``."""
        words, levels = cls._coded(layer)
        packed = cls(
            layer.num_embeddings,
            layer.embedding_dim,
            per_row=len(levels) > 1,
            mode=layer.mode,
            include_last_offset=layer.include_last_offset,
            padding_idx=layer.padding_idx,
        )
        packed.words, packed.levels = words, levels
        return packed.train(layer.training)

    def forward(
        self,
        input: Tensor,
        offsets: Tensor | None = None,
        per_sample_weights: Tensor | None = None,
    ) -> Any:
        # The rows in use make a small table of their own; its last row is the padding.
        used = self.rows(input.flatten())
        places = torch.arange(input.numel(), device=input.device).view(input.shape)
        padding = None
        if self.padding_idx is not None:
            padding = input.numel()
            used = torch.cat([used, used.new_zeros(1, self.embedding_dim)])
            places = torch.where(input == self.padding_idx, padding, places)
        return F.embedding_bag(
            places,
            used,
            None if offsets is None else offsets.long(),
            mode=self.mode,
            per_sample_weights=per_sample_weights,
            include_last_offset=self.include_last_offset,
            padding_idx=padding,
        )

    def extra_repr(self) -> str:
        return (
            f"{super().extra_repr()}, mode={self.mode!r}, "
            f"include_last_offset={self.include_last_offset}, padding_idx={self.padding_idx}"
        )
