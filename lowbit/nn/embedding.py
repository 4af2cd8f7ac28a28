"""Embeddings with a quantized table."""

from __future__ import annotations

from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lowbit.nn._layer import QuantizedLayer
from lowbit.quantizers import Spec


def _refuse(layer: str, input_quantization: Spec, threshold: float | None) -> None:
    for name, value in (
        ("input_quantization", input_quantization),
        ("gradient_cancellation_threshold", threshold),
    ):
        if value is not None:
            raise ValueError(
                f"{layer} takes indices, which have no values to quantize and no gradient to "
                f"cancel: {name} must be None; got {value!r}. Quantize the table with "
                "weight_quantization, the output with QActivation"
            )


class _DenseGradient(torch.autograd.Function):
    """x, whose sparse gradient goes on as a dense one."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient.to_dense()


class _QuantizedTable(QuantizedLayer):
    """The table of an embedding, quantized after the rows in use were renormalised."""

    num_embeddings: int
    max_norm: float | None
    norm_type: float
    sparse: bool

    def _quantize_table(self, weight_quantization: Spec) -> None:
        self._set_quantization(
            None,
            weight_quantization,
            None,
            input_layout=(1, -1),
            weight_layout=(self.num_embeddings, 0),
        )

    @classmethod
    def from_pretrained(
        cls,
        embeddings: Tensor,
        freeze: bool = True,
        *args: Any,
        weight_quantization: Spec = None,
        **kwargs: Any,
    ) -> Self:
        """As torch's, with the quantizer of the given table."""
        layer = super().from_pretrained(embeddings, freeze, *args, **kwargs)  # type: ignore[misc]
        layer._quantize_table(weight_quantization)
        return layer

    def _table(self, indices: Tensor) -> Tensor:
        if self.max_norm is not None:
            # On the latent table, as torch does; F.embedding would change the quantized copy.
            with torch.no_grad():
                torch.embedding_renorm_(
                    self.weight, indices.contiguous(), self.max_norm, self.norm_type
                )
        table = self._quantized_weight()
        if self.sparse and not self._passes_gradients_on():
            # Few of the operations in quantizers take a sparse gradient.
            table = _DenseGradient.apply(table)
        return table

    def _passes_gradients_on(self) -> bool:
        quantizer = self.weight_quantization
        return quantizer is None or (quantizer.is_local and not quantizer.slope_reads_input)


class QEmbedding(_QuantizedTable, nn.Embedding):
    """``torch.nn.Embedding`` with a quantized table: rows of q_w(weight).

    indices (*) integer -> (*, embedding_dim). ``weight_quantization`` as in ``QLinear``, its
    channels being the rows; all other arguments are those of ``torch.nn.Embedding``. The other
    two arguments that all Q layers take must stay ``None``: indices are not quantized.

    The row ``padding_idx`` is quantized as well: its zeros become +1 after a ``sign``. With
    ``sparse``, the weight's gradient is sparse only where the quantizer passes it on as it is
    (slope 1), else dense.

    >>> layer = QEmbedding(10, 4, weight_quantization="sign")
    >>> layer(torch.tensor([[1, 2, 3]])).abs().unique()
    tensor([1.], grad_fn=<Unique2Backward0>)
    """

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        padding_idx: int | None = None,
        max_norm: float | None = None,
        norm_type: float = 2.0,
        scale_grad_by_freq: bool = False,
        sparse: bool = False,
        _weight: Tensor | None = None,
        _freeze: bool = False,
        device: Any = None,
        dtype: Any = None,
        *,
        input_quantization: Spec = None,
        weight_quantization: Spec = None,
        gradient_cancellation_threshold: float | None = None,
    ) -> None:
        super().__init__(
            num_embeddings,
            embedding_dim,
            padding_idx,
            max_norm,
            norm_type,
            scale_grad_by_freq,
            sparse,
            _weight,
            _freeze,
            device,
            dtype,
        )
        _refuse("QEmbedding", input_quantization, gradient_cancellation_threshold)
        self._quantize_table(weight_quantization)

    def forward(self, indices: Tensor) -> Tensor:
        return F.embedding(
            indices,
            self._table(indices),
            self.padding_idx,
            scale_grad_by_freq=self.scale_grad_by_freq,
            sparse=self.sparse,
        )


class QEmbeddingBag(_QuantizedTable, nn.EmbeddingBag):
    """``torch.nn.EmbeddingBag`` with a quantized table: sums, means or maxima of its rows.

    Arguments and shapes are those of ``torch.nn.EmbeddingBag``; ``weight_quantization`` and the
    other two as in ``QEmbedding``.

    >>> layer = QEmbeddingBag(10, 4, mode="sum", weight_quantization="sign")
    >>> layer(torch.tensor([[1, 2, 3]])).shape
    torch.Size([1, 4])
    """

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        max_norm: float | None = None,
        norm_type: float = 2.0,
        scale_grad_by_freq: bool = False,
        mode: str = "mean",
        sparse: bool = False,
        _weight: Tensor | None = None,
        include_last_offset: bool = False,
        padding_idx: int | None = None,
        device: Any = None,
        dtype: Any = None,
        *,
        input_quantization: Spec = None,
        weight_quantization: Spec = None,
        gradient_cancellation_threshold: float | None = None,
    ) -> None:
        super().__init__(
            num_embeddings,
            embedding_dim,
            max_norm,
            norm_type,
            scale_grad_by_freq,
            mode,
            sparse,
            _weight,
            include_last_offset,
            padding_idx,
            device,
            dtype,
        )
        _refuse("QEmbeddingBag", input_quantization, gradient_cancellation_threshold)
        self._quantize_table(weight_quantization)

    def forward(
        self,
        input: Tensor,
        offsets: Tensor | None = None,
        per_sample_weights: Tensor | None = None,
    ) -> Tensor:
        return F.embedding_bag(
            input,
            self._table(input),
            offsets,
            scale_grad_by_freq=self.scale_grad_by_freq,
            mode=self.mode,
            sparse=self.sparse,
            per_sample_weights=per_sample_weights,
            include_last_offset=self.include_last_offset,
            padding_idx=self.padding_idx,
        )
