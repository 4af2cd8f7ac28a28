"""Embeddings whose rows are integers of 8, 4 or 2 bits, each row with a scale of its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import type_before_parametrizations

from lowbit.functional.int8 import embedding as rows
from lowbit.nn.quantized._inputs import described
from lowbit.nn.quantized._legacy import plain_entries
from lowbit.nn.quantized._observed import check_finite, has_seen, scheme_of
from lowbit.qtensor import QTensor, quantize_per_channel

BITS = {"uint8": 8, "quint8": 8, "uint4": 4, "quint4x2": 4, "uint2": 2, "quint2x4": 2}
_DTYPES = {(0, 255): "quint8", (0, 15): "quint4x2", (0, 3): "quint2x4"}


def bits_of(dtype: Any) -> int:
    """Bits of a number, of ``torch.quint8``, ``"quint4x2"``, ``torch.uint8``, … ValueError else."""
    found = BITS.get(str(dtype).removeprefix("torch."))
    if found is None:
        raise ValueError(f"no embedding of {dtype!r}; known: {', '.join(BITS)}")
    return found


class Embedding(nn.Module):
    """``torch.nn.Embedding`` of integers: indices of any shape -> (*indices, d) float32.

    ``dtype``: "quint8", "quint4x2" or "quint2x4" for 8, 4 or 2 bits. ``weight()`` is a QTensor
    (num_embeddings, embedding_dim) of uint8 with a scale and a real zero point for each row,
    zeros at first. With fewer bits than 8, scales are looked up in float16. ``padding_idx``,
    ``max_norm`` and the other arguments of training are accepted, and have no meaning here.

    A ``state_dict`` has ``weight``, the table of ``lowbit.functional.int8.embedding`` with scales
    inside, and ``weight_scale`` and ``weight_zero_point`` float32 (num_embeddings,); that of
    torch's module loads as well.

    Calls raise IndexError for indices outside the table.

    >>> m = Embedding(num_embeddings=10, embedding_dim=12)
    >>> m(torch.tensor([9, 6, 5, 7, 8, 8, 9, 2, 8])).size()
    torch.Size([9, 12])
    """

    _table: Tensor
    _weight_scale: Tensor
    _weight_zero_point: Tensor
    _kinds = "Embedding"

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        padding_idx: int | None = None,
        max_norm: float | None = None,
        norm_type: float = 2.0,
        scale_grad_by_freq: bool = False,
        sparse: bool = False,
        _weight: QTensor | None = None,
        dtype: Any = "quint8",
    ) -> None:
        super().__init__()
        self.num_embeddings, self.embedding_dim = num_embeddings, embedding_dim
        self.padding_idx = padding_idx
        self.bits = bits_of(dtype)
        if _weight is None:
            shape = (num_embeddings, embedding_dim)
            ones, zeros = torch.ones(num_embeddings), torch.zeros(num_embeddings)
            _weight = QTensor(torch.zeros(shape, dtype=torch.uint8), ones, zeros, 0)
        self.set_weight(_weight)

    def set_weight(self, w: QTensor) -> None:
        """Set the rows: uint8 below 2^bits, with a scale and a real zero point for each row.

        Raises TypeError and ValueError for others, and where numbers do not fill whole bytes.
        """
        name = type(self).__name__
        if not isinstance(w, QTensor) or w.dtype != torch.uint8:
            raise TypeError(f"the weight of {name} is a QTensor of uint8, not {described(w)}")
        if w.shape != (self.num_embeddings, self.embedding_dim):
            raise ValueError(
                f"the weight of {name} has shape ({self.num_embeddings}, {self.embedding_dim}), "
                f"not {tuple(w.shape)}"
            )
        if w.axis != 0:
            raise ValueError(f"the weight of {name} has a scale for each row: axis 0, not {w.axis}")
        limit = 2**self.bits - 1
        if self.bits < 8 and w.values.numel() and int(w.values.max()) > limit:
            raise ValueError(f"a weight of {self.bits} bits is at most {limit}")
        scales = w.q_per_channel_scales().detach().float()
        zero_points = w.q_per_channel_zero_points().detach().float()
        self._set(rows.pack_rows(w.values, scales, zero_points, self.bits), scales, zero_points)

    def _set(self, table: Tensor, scales: Tensor, zero_points: Tensor) -> None:
        self.register_buffer("_table", table, persistent=False)
        self.register_buffer("_weight_scale", scales, persistent=False)
        self.register_buffer("_weight_zero_point", zero_points, persistent=False)

    def weight(self) -> QTensor:
        """The rows."""
        codes, _, _ = rows.unpack_rows(self._table, self.bits)
        return QTensor(codes, self._weight_scale, self._weight_zero_point, 0)

    def forward(self, indices: Tensor) -> Tensor:
        """Indices of any shape -> (*indices, embedding_dim) float32."""
        return rows.embedding(self._table, indices, self.bits)

    def _get_name(self) -> str:
        return f"Quantized{type(self).__name__}"

    def extra_repr(self) -> str:
        return (
            f"num_embeddings={self.num_embeddings}, embedding_dim={self.embedding_dim}, "
            f"bits={self.bits}"
        )

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        before = dict(self._buffers)
        super()._apply(fn, recurse)
        for name, value in before.items():
            moved = self._buffers[name]
            if value is not None and moved is not None and moved.dtype != value.dtype:
                self._buffers[name] = value.to(moved.device)
        return self

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        destination[prefix + "weight"] = self._table
        destination[prefix + "weight_scale"] = self._weight_scale
        destination[prefix + "weight_zero_point"] = self._weight_zero_point

    def _load_from_state_dict(
        self,
        state_dict: dict[str, Any],
        prefix: str,
        local_metadata: dict[str, Any],
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        keys = [key for key in state_dict if key.startswith(prefix)]
        entries = {key.removeprefix(prefix): state_dict.pop(key) for key in keys}
        entries = plain_entries(entries)
        names = ("weight", "weight_scale", "weight_zero_point")
        if all(name in entries for name in names):
            table, *vectors = (
                entries.pop(name).to(self._table.device, copy=True) for name in names
            )
            shapes = [tuple(part.shape) for part in (table, *vectors)]
            buffers = (self._table, self._weight_scale, self._weight_zero_point)
            own = [tuple(part.shape) for part in buffers]
            if shapes == own:
                self._set(table, *(vector.float() for vector in vectors))
            else:
                error_msgs.append(
                    f"{prefix.removesuffix('.')}: a table, scales and zero points of shapes "
                    f"{shapes} for an embedding with {own}"
                )
        elif strict:
            missing_keys.extend(prefix + name for name in names if name not in entries)
        state_dict.update({prefix + name: value for name, value in entries.items()})
        super()._load_from_state_dict(
            state_dict,
            prefix,
            local_metadata,
            strict,
            missing_keys,
            unexpected_keys,
            error_msgs,
        )

    @classmethod
    def from_float(cls, mod: nn.Module, use_precomputed_fake_quant: bool = False) -> Self:
        """Of a ``torch.nn.Embedding`` with a qconfig, or one trained with fake quantization.

        The qconfig's weight observer has the qscheme ``per_channel_affine_float_qparams`` and a
        dtype of 8, 4 or 2 bits; 8 bits where it has none.

        Raises TypeError for another module, ValueError without a qconfig or with another observer.
        """
        layer: Any = mod
        observer = getattr(mod, "weight_fake_quant", None)
        if observer is None:
            if type_before_parametrizations(mod) is not getattr(nn, cls._kinds):
                raise TypeError(
                    f"{cls.__name__}.from_float takes {cls._kinds}, not {type(mod).__name__}"
                )
            if not hasattr(mod, "qconfig"):
                raise ValueError(
                    f"{cls.__name__}.from_float: the {cls._kinds} has no qconfig; set mod.qconfig, "
                    "None for 8 bits"
                )
            made = getattr(mod.qconfig, "weight", None)
            observer = made() if callable(made) else None
        elif not isinstance(mod, getattr(nn, cls._kinds)):
            raise TypeError(
                f"{cls.__name__}.from_float takes {cls._kinds}, not {type(mod).__name__}"
            )
        weight = layer.weight.detach().float()
        if observer is None:
            q, dtype = QTensor(*rows.quantize_rows(weight), axis=0), "quint8"
        else:
            q, dtype = _observed_rows(weight, observer, use_precomputed_fake_quant, cls.__name__)
        embedding = cls._like(layer, dtype)
        embedding.set_weight(q)
        return embedding

    @classmethod
    def _like(cls, mod: Any, dtype: Any, weight: QTensor | None = None) -> Self:
        return cls(
            *(mod.num_embeddings, mod.embedding_dim, mod.padding_idx, mod.max_norm),
            *(mod.norm_type, mod.scale_grad_by_freq, mod.sparse, weight, dtype),
        )

    @classmethod
    def from_reference(cls, ref_embedding: Any) -> Self:
        """Of a reference layer: ``get_quantized_weight()`` has the rows, a QTensor."""
        weight = ref_embedding.get_quantized_weight()
        return cls._like(ref_embedding, ref_embedding.weight_dtype, weight)


def _observed_rows(
    weight: Tensor, observer: Any, precomputed: bool, name: str
) -> tuple[QTensor, str]:
    scheme = scheme_of(observer)
    if scheme != "per_channel_affine_float_qparams":
        raise ValueError(
            f"{name} has real zero points, a qconfig whose weight observer has the qscheme "
            f"per_channel_affine_float_qparams, not {scheme}: float_qparams_weight_only_qconfig"
        )
    # By its range: a plain dtype has 8 bits always.
    limits = getattr(observer, "activation_post_process", observer)
    dtype = _DTYPES.get((limits.quant_min, limits.quant_max))
    if dtype is None:
        raise ValueError(
            f"{name} has integers of 8, 4 or 2 bits without a sign: a weight observer from 0 to "
            f"255, 15 or 3, not from {limits.quant_min} to {limits.quant_max}"
        )
    check_finite(weight)
    if not (precomputed or has_seen(observer)):
        observer(weight)
    scales, zero_points = observer.calculate_qparams()
    q = quantize_per_channel(weight, scales.float(), zero_points.float(), 0, torch.uint8)
    return q.with_values(q.values.clamp_max(limits.quant_max)), dtype
