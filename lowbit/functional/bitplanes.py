"""Products of k-bit integers as shifted sums of binary products."""

from __future__ import annotations

import torch
from torch import Tensor

from lowbit.functional.packing import pack_bits, popcount


def bit_planes(x: Tensor, bits: int) -> Tensor:
    """The binary digits of integers 0 … 2^bits - 1: (..., k) -> (bits, ..., words) int64.

    Plane i packs bit i of every element, the least significant first.
    """
    x = x.to(torch.int64)
    if x.numel() > 0:
        low, high = int(x.min()), int(x.max())
        if low < 0 or high >= 2**bits:
            raise ValueError(f"{bits} bits hold 0 to {2**bits - 1}; got {low} to {high}")
    return torch.stack([pack_bits((x >> i) & 1 == 1) for i in range(bits)])


def bit_plane_matmul(a: Tensor, b: Tensor) -> Tensor:
    """Dot products of unsigned integers by planes: (p, m, words), (q, n, words) -> (m, n) int64.

    sum_ij 2^(i+j) popcount(a_i and b_j): element (m, n) is the dot product of row m and row n.
    """
    both = popcount(a[:, None, :, None] & b[None, :, None, :]).sum(-1)
    i = torch.arange(len(a), device=a.device).view(-1, 1, 1, 1)
    j = torch.arange(len(b), device=b.device).view(1, -1, 1, 1)
    return (both << (i + j)).sum((0, 1))


def sign_plane_matmul(a: Tensor, b: Tensor) -> Tensor:
    """Dot products of unsigned integers with signs: (p, m, words), (n, words) -> (m, n) int64.

    A sign is 1 - 2 bit, so the product is sum_i 2^i (popcount(a_i) - 2 popcount(a_i and b)).
    """
    ones = popcount(a).sum(-1).unsqueeze(-1)
    both = popcount(a.unsqueeze(2) & b).sum(-1)
    i = torch.arange(len(a), device=a.device).view(-1, 1, 1)
    return ((ones - 2 * both) << i).sum(0)
