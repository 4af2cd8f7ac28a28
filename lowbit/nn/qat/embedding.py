"""Embeddings for quantization-aware training."""

from __future__ import annotations

from typing import Any, Self

import torch.nn.functional as F
from torch import Tensor, nn

from lowbit.nn.qat._layer import QatLayer, layers_of


class QatEmbedding(QatLayer):
    """Mixin: a table whose rows are rounded by ``weight_fake_quant``, each on a grid of its own.

    The qconfig's weight must be of scheme per_channel_affine_float_qparams, as int8, int4 and
    int2 embeddings are stored; else ValueError. Quantizers named from lowbit's registry are
    taken as they are.
    """

    def _set_rows(self, qconfig: Any) -> None:
        self._set_qconfig(qconfig)
        scheme = str(getattr(self.weight_fake_quant, "qscheme", "none")).removeprefix("torch.")
        named = hasattr(self.weight_fake_quant, "quantizer")
        if not named and scheme != "per_channel_affine_float_qparams":
            raise ValueError(
                f"qat.{type(self).__name__} needs weights of scheme "
                f"per_channel_affine_float_qparams, not {scheme}: use "
                "lowbit.qconfig.default_embedding_qat_qconfig, or …_4bit"
            )

    def _copied(self, new: Any) -> Any:
        new.weight = nn.Parameter(self.weight.detach().clone())
        return new.train(self.training)


class Embedding(QatEmbedding, nn.Embedding):
    """``torch.nn.Embedding`` whose table is rounded by ``weight_fake_quant``."""

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
        device: Any = None,
        dtype: Any = None,
        qconfig: Any = None,
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
            device=device,
            dtype=dtype,
        )
        self._set_rows(qconfig)

    def forward(self, input: Tensor) -> Tensor:
        return F.embedding(
            input,
            self.weight_fake_quant(self.weight),
            self.padding_idx,
            self.max_norm,
            self.norm_type,
            self.scale_grad_by_freq,
            self.sparse,
        )

    @classmethod
    def from_float(cls, mod: nn.Module, use_precomputed_fake_quant: bool = False) -> Self:
        """Of a ``torch.nn.Embedding`` with a ``qconfig``; its Parameter is shared.

        Raises TypeError for other modules, ValueError without a qconfig or for its scheme.
        """
        (table,) = layers_of(cls, mod, (nn.Embedding,))
        layer = cls(**_settings(table), _weight=table.weight.detach(), qconfig=table.qconfig)
        layer.weight = table.weight
        return layer.train(mod.training)

    def to_float(self) -> nn.Module:
        """A ``torch.nn.Embedding`` with a copy of the table, in full precision."""
        weight = self.weight.detach()
        return self._copied(nn.Embedding(**_settings(self), _weight=weight))


class EmbeddingBag(QatEmbedding, nn.EmbeddingBag):
    """``torch.nn.EmbeddingBag`` whose table is rounded by ``weight_fake_quant``."""

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
        qconfig: Any = None,
        device: Any = None,
        dtype: Any = None,
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
            device=device,
            dtype=dtype,
        )
        self._set_rows(qconfig)

    def forward(
        self,
        input: Tensor,
        offsets: Tensor | None = None,
        per_sample_weights: Tensor | None = None,
    ) -> Tensor:
        return F.embedding_bag(
            input,
            self.weight_fake_quant(self.weight),
            offsets,
            self.max_norm,
            self.norm_type,
            self.scale_grad_by_freq,
            self.mode,
            self.sparse,
            per_sample_weights,
            self.include_last_offset,
            self.padding_idx,
        )

    @classmethod
    def from_float(cls, mod: nn.Module, use_precomputed_fake_quant: bool = False) -> Self:
        """Of a ``torch.nn.EmbeddingBag`` with a ``qconfig``; its Parameter is shared.

        Raises TypeError for other modules, ValueError without a qconfig or for its scheme.
        """
        (table,) = layers_of(cls, mod, (nn.EmbeddingBag,))
        settings = _settings(table, "mode", "include_last_offset")
        layer = cls(**settings, _weight=table.weight.detach(), qconfig=table.qconfig)
        layer.weight = table.weight
        return layer.train(mod.training)

    def to_float(self) -> nn.Module:
        """A ``torch.nn.EmbeddingBag`` with a copy of the table, in full precision."""
        settings = _settings(self, "mode", "include_last_offset")
        return self._copied(nn.EmbeddingBag(**settings, _weight=self.weight.detach()))


def _settings(table: Any, *more: str) -> dict[str, Any]:
    """What a table was made with."""
    names = (
        "num_embeddings",
        "embedding_dim",
        "padding_idx",
        "max_norm",
        "norm_type",
        "scale_grad_by_freq",
        "sparse",
        *more,
    )
    return {name: getattr(table, name) for name in names}
