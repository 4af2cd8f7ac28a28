"""``QTensor`` as a pytree, so that torch.compile, torch.export and tree_map see its tensors."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils import _pytree

from lowbit.qtensor._qtensor import QTensor

Context = tuple[Any, Any, int | None]


def _flatten(q: QTensor) -> tuple[list[Any], Context]:
    """Tensors are leaves; the scale and the zero point of a whole tensor are its context."""
    if q.axis is None:
        return [q.values], (q.q_scale(), q.q_zero_point(), None)
    return [q.values, q.scale, q.zero_point], (None, None, q.axis)


def _flatten_with_keys(q: QTensor) -> tuple[list[tuple[Any, Any]], Context]:
    leaves, context = _flatten(q)
    names = ("values", "scale", "zero_point")
    return [(_pytree.GetAttrKey(n), x) for n, x in zip(names, leaves, strict=False)], context


def _unflatten(leaves: Any, context: Context) -> QTensor:
    """Without checks: leaves may be anything that a tree_map or a tracer puts there."""
    q = object.__new__(QTensor)
    leaves = list(leaves)
    q.values = leaves[0]
    q.scale, q.zero_point = context[:2] if context[2] is None else leaves[1:]
    q.axis = context[2]
    return q


def register() -> None:
    """Tell torch's pytrees, and ``torch.load(weights_only=True)``, of ``QTensor``."""
    if QTensor not in _pytree.SUPPORTED_NODES:
        _pytree.register_pytree_node(
            QTensor,
            _flatten,
            _unflatten,
            serialized_type_name="lowbit.qtensor.QTensor",
            to_dumpable_context=list,
            from_dumpable_context=tuple,
            flatten_with_keys_fn=_flatten_with_keys,
        )
    torch.serialization.add_safe_globals([QTensor])
