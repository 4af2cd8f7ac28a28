"""Weights as the kernels take them, made at their first use and kept as long as they live."""

from __future__ import annotations

import weakref
from typing import NamedTuple

import torch
from torch import Tensor

from lowbit.functional.int8.dynamic import Matrix

# The kernels sum in int32.
_GREATEST_SUM = 2**31 - 1


class Packed(NamedTuple):
    """An int8 weight (n, k) with zero points of 0, and what it was made of."""

    made_of: tuple[weakref.ref[Tensor], ...]
    versions: tuple[int, ...] | None
    transposed: Tensor  # int8 (k, n), for _int_mm
    sums: Tensor  # int32 (n,), of the weights of each output
    scales: Tensor  # float32 (n,)
    zero_points: Tensor  # int32 (n,), zeros: qlinear_pointwise asks for them
    blocked: Tensor  # for qlinear_pointwise


_kept: dict[int, Packed] = {}


def find(weight: Matrix) -> Packed | None:
    """The packed form of a weight; None where it has none.

    That is: of float16, of zero points other than 0, and of sums that int32 may not hold. Writing
    to a weight in place packs it anew; writing through ``.data`` goes unseen, as in autograd.
    """
    values, scale, zero_point, _ = weight
    if scale is None or zero_point is None or values.device.type != "cpu":
        return None
    found = _kept.get(id(values))
    if found is not None and found.versions is not None:
        a, b, c = found.made_of
        same = a() is values and b() is scale and c() is zero_point
        if same and found.versions == (values._version, scale._version, zero_point._version):
            return found
    if bool((zero_point != 0).any()) or not _fits(values):
        return None
    with torch.no_grad():
        found = _kept[id(values)] = pack(values, scale, zero_point)
    return found


def pack(values: Tensor, scale: Tensor, zero_point: Tensor) -> Packed:
    """The packed form of an int8 weight (n, k)."""
    key, rows, parts = id(values), values.detach().contiguous(), (values, scale, zero_point)
    # A view would hold its base, which is the weight, and keep it alive for ever.
    transposed = torch.empty(0, dtype=torch.int8).set_(
        rows.untyped_storage(), rows.storage_offset(), rows.shape[::-1], rows.stride()[::-1]
    )
    # Tensors made in inference mode do not count what is written to them.
    counted = not any(part.is_inference() for part in parts)
    return Packed(
        (weakref.ref(values, lambda dead: _forget(key, dead)), *map(weakref.ref, parts[1:])),
        tuple(part._version for part in parts) if counted else None,
        transposed,
        rows.sum(1, dtype=torch.int32),
        scale.detach().float().expand(len(rows)).contiguous(),
        torch.zeros(len(rows), dtype=torch.int32),
        torch.ops.onednn.qlinear_prepack.default(rows, None),
    )


def _fits(values: Tensor) -> bool:
    # int8 has no abs(-128).
    return 255 * 128 * values.shape[1] <= _GREATEST_SUM or bool(
        255 * values.to(torch.int16).abs().sum(1, dtype=torch.int64).max() <= _GREATEST_SUM
    )


def _forget(key: int, dead: weakref.ref[Tensor]) -> None:
    found = _kept.get(key)
    if found is not None and found.made_of[0] is dead:
        del _kept[key]
