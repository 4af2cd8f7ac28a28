"""Ternary values as two planes of bits: the signs, and where there is a value at all."""

from __future__ import annotations

import torch
from torch import Tensor

from lowbit.functional.packing import pack_bits, popcount, unpack_bits


def pack_ternary(x: Tensor) -> tuple[Tensor, Tensor]:
    """The planes of the last axis: (..., k) -> signs and mask, each (..., words) int64.

    The mask has 1 where x is not 0; the signs have 1 where x is negative (and so 0 where it
    is 0).

    >>> pack_ternary(torch.tensor([1.0, 0.0, -1.0]))
    (tensor([4]), tensor([5]))
    """
    return pack_bits(x < 0), pack_bits(x != 0)


def unpack_ternary(
    signs: Tensor, mask: Tensor, k: int, dtype: torch.dtype = torch.float32
) -> Tensor:
    """-1, 0 and +1 in ``dtype``: two (..., words) -> (..., k)."""
    return (1 - 2 * unpack_bits(signs, k).to(dtype)) * unpack_bits(mask, k).to(dtype)


def ternary_bgemm(a: Tensor, b: Tensor, mask: Tensor) -> Tensor:
    """Dot products of signs with ternary rows: a (m, words), b and mask (n, words) -> (m, n) int32.

    popcount(mask) - 2 popcount((a xor b) and mask).
    """
    differ = popcount((a.unsqueeze(1) ^ b.unsqueeze(0)) & mask.unsqueeze(0)).sum(-1)
    return (popcount(mask).sum(-1) - 2 * differ).to(torch.int32)
