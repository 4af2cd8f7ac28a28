"""Bags of an embedding's rows, which are integers of 8, 4 or 2 bits."""

from __future__ import annotations

from typing import Any, Self

from torch import Tensor

from lowbit.functional.int8 import embedding as rows
from lowbit.nn.quantized.embedding import Embedding
from lowbit.qtensor import QTensor


class EmbeddingBag(Embedding):
    """``torch.nn.EmbeddingBag`` of integers: sum, mean or max of bags of rows, in float32.

    ``mode``: "sum", "mean" or "max". A bag without entries is 0. Weight, dtypes, state and errors
    as ``Embedding``.

    >>> import torch
    >>> m = EmbeddingBag(10, 12, include_last_offset=True, mode="sum")
    >>> m(torch.tensor([9, 6, 5, 7, 8, 8]), torch.tensor([0, 4, 4, 6])).size()
    torch.Size([3, 12])
    """

    _kinds = "EmbeddingBag"

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        max_norm: float | None = None,
        norm_type: float = 2.0,
        scale_grad_by_freq: bool = False,
        mode: str = "sum",
        sparse: bool = False,
        _weight: QTensor | None = None,
        include_last_offset: bool = False,
        dtype: Any = "quint8",
        padding_idx: int | None = None,
    ) -> None:
        if mode not in ("sum", "mean", "max"):
            raise ValueError(f"mode of EmbeddingBag is 'sum', 'mean' or 'max', not {mode!r}")
        super().__init__(num_embeddings, embedding_dim, padding_idx, _weight=_weight, dtype=dtype)
        self.mode = mode
        self.include_last_offset = include_last_offset

    def forward(
        self,
        indices: Tensor,
        offsets: Tensor | None = None,
        per_sample_weights: Tensor | None = None,
        compressed_indices_mapping: Tensor | None = None,
    ) -> Tensor:
        """Indices (bags, size), or a vector with the ``offsets`` of its bags -> (bags, dim).

        ``per_sample_weights`` multiply the rows of a sum. NotImplementedError for a mapping of
        compressed indices.
        """
        if compressed_indices_mapping is not None:
            raise NotImplementedError("EmbeddingBag has no pruned rows: give indices of the table")
        return rows.embedding_bag(
            *(self._table, indices, offsets, self.bits, self.mode, per_sample_weights),
            *(self.include_last_offset, self.padding_idx),
        )

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, mode={self.mode!r}"

    @classmethod
    def _like(cls, mod: Any, dtype: Any, weight: QTensor | None = None) -> Self:
        return cls(
            mod.num_embeddings,
            mod.embedding_dim,
            mode=mod.mode,
            _weight=weight,
            include_last_offset=mod.include_last_offset,
            dtype=dtype,
            padding_idx=getattr(mod, "padding_idx", None),
        )
