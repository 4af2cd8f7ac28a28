"""Products of signs: matrix products and convolutions, by XNOR and popcount.

A product of two signs is +1 where their bits agree and -1 where they do not, so a dot product of
k of them is k - 2 popcount(a xor b).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from lowbit.functional.packing import pack_bits, pack_signs, popcount, words_for


def bgemm(a: Tensor, b: Tensor, k: int) -> Tensor:
    """Dot products of packed rows: a (m, words), b (n, words) int64 -> (m, n) int32.

    ``k`` is the number of signs in a row; both operands hold it in ``words_for(k)`` words.

    >>> bgemm(torch.tensor([[0b01]]), torch.tensor([[0b11]]), 3)
    tensor([[1]], dtype=torch.int32)
    """
    for name, words in (("a", a), ("b", b)):
        if words.dtype != torch.int64 or words.ndim != 2 or words.shape[1] != words_for(k):
            raise ValueError(
                f"bgemm of {k} signs takes {name} (rows, {words_for(k)}) of int64; "
                f"got {tuple(words.shape)} of {words.dtype}"
            )
    differ = popcount(a.unsqueeze(1) ^ b.unsqueeze(0)).sum(-1)
    return (k - 2 * differ).to(torch.int32)


def bconv(
    x: Tensor,
    weight: Tensor,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
    pad_value: int = -1,
) -> Tensor:
    """Convolution of signs: x (n, c, ...), weight (o, c / groups, k ...) -> (n, o, ...) int32.

    One to three spatial axes; only the signs of x and weight count (0 and -0.0 are positive).
    ``pad_value`` is what surrounds sign(x): -1, +1, or 0, which adds nothing to any sum.
    """
    dims = x.ndim - 2
    if dims not in (1, 2, 3) or weight.ndim != x.ndim:
        raise ValueError(
            "bconv takes x (n, c, ...) and weight (o, c / groups, ...) with one to three spatial "
            f"axes each; got {tuple(x.shape)} and {tuple(weight.shape)}"
        )
    if pad_value not in (-1, 0, 1):
        raise ValueError(f"pad_value is -1, 0 or 1; got {pad_value!r}")
    c, o = x.shape[1], weight.shape[0]
    if groups < 1 or c % groups or o % groups or weight.shape[1] != c // groups:
        raise ValueError(
            f"{c} input and {o} output channels in {groups} groups need weights "
            f"(o, c / groups, ...); got {tuple(weight.shape)}"
        )
    stride, padding, dilation = (_each(v, dims) for v in (stride, padding, dilation))
    surround = [p for axis in reversed(padding) for p in (axis, axis)]
    negative = F.pad(x < 0, surround, value=pad_value < 0)
    counts = F.pad(torch.ones_like(x, dtype=torch.bool), surround, value=pad_value != 0)

    patches = _patches(negative, weight.shape[2:], stride, dilation)
    valid = _patches(counts, weight.shape[2:], stride, dilation)
    outputs = []
    for group in range(groups):
        channels = slice(group * (c // groups), (group + 1) * (c // groups))
        filters = slice(group * (o // groups), (group + 1) * (o // groups))
        a = pack_bits(patches[..., channels, :].flatten(-2))
        v = pack_bits(valid[..., channels, :].flatten(-2))
        b = pack_signs(weight[filters].flatten(1))
        # (n, *out, 1, words) with (filters, words): how many of the places that count differ.
        differ = popcount((a.unsqueeze(-2) ^ b) & v.unsqueeze(-2)).sum(-1)
        outputs.append(popcount(v).sum(-1, keepdim=True) - 2 * differ)
    return torch.cat(outputs, -1).movedim(-1, 1).to(torch.int32)


def _each(value: int | Sequence[int], dims: int) -> tuple[int, ...]:
    """One number for each spatial axis."""
    values = (value,) * dims if isinstance(value, int) else tuple(value)
    if len(values) != dims:
        raise ValueError(f"{dims} spatial axes need {dims} numbers or one; got {value!r}")
    return values


def _patches(
    x: Tensor, kernel: Sequence[int], stride: Sequence[int], dilation: Sequence[int]
) -> Tensor:
    """The inputs under each place of the kernel: (n, c, ...) -> (n, *out, c, taps)."""
    for i, (size, step, gap) in enumerate(zip(kernel, stride, dilation, strict=True)):
        # Appends the window as a last axis; a dilated window takes every gap-th element of it.
        x = x.unfold(2 + i, (size - 1) * gap + 1, step)[..., ::gap]
    dims = len(kernel)
    return x.flatten(2 + dims).movedim(1, 1 + dims)
