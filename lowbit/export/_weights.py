"""Weights of few values: packed in the file, and unpacked by standard operators.

Several to a byte, each byte is looked up in a table of all that a byte may hold (Gather). That
depends on no input, so runtimes do it once, when the model is loaded.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lowbit.export._recorder import Recorder
from lowbit.functional.packed_geometry import largest_code
from lowbit.nn.packed import CannotPack
from lowbit.nn.packed._weights import weight_code


def unpacked(
    g: Recorder, integers: Tensor, largest: int, dtype: torch.dtype = torch.float32
) -> str:
    """Integers -largest, -largest + 2, … largest: the name of what they are unpacked to."""
    bits = next(b for b in (1, 2, 4, 8) if 2**b > largest)
    codes = ((integers.flatten() + largest) / 2).to(torch.uint8)
    table = g.shared(
        ("table", largest, dtype), lambda: _table(bits, largest).to(dtype), "values_of_a_byte"
    )
    stored = g.node("Cast", g.constant_of(_bytes(codes, bits), "packed"), to=torch.int32)
    values = g.node("Gather", table, stored, axis=0)
    count = integers.numel()
    if count % (8 // bits):
        ends = (g.constant_of(torch.tensor([end]), "slice") for end in (0, count))
        values = g.node("Slice", g.node("Reshape", values, _lengths(g, [-1])), *ends)
    return str(g.node("Reshape", values, _lengths(g, list(integers.shape))))


def packed_signs(integers: Tensor) -> Tensor:
    """The signs of numbers, eight to a byte: 1 where one is not negative, the first lowest."""
    return _bytes((integers.flatten() >= 0).to(torch.uint8), 1)


def decoded(
    g: Recorder,
    filters: Sequence[Tensor],
    factors: Sequence[Tensor] | Tensor,
    constant: Tensor,
    largest: int,
) -> str:
    """The sum of filters (o, ...) of integers, each with a factor (o,), and a constant (o,)."""
    shape = (-1, *[1] * (filters[0].ndim - 1))
    made = ""
    for integers, factor in zip(filters, factors, strict=True):
        part = unpacked(g, integers, largest)
        part = g.node("Mul", part, g.constant_of(factor.float().view(shape), "factor"))
        made = g.node("Add", made, part) if made else part
    if bool((constant != 0).any()):
        made = g.node("Add", made, g.constant_of(constant.float().view(shape), "constant"))
    return made


def small(g: Recorder, weight: Tensor) -> str:
    """A weight of floats from few bits, right to one ulp; as it is where it has many values."""
    try:
        code = weight_code(weight.float())
    except CannotPack:
        return g.constant_of(weight, "weight")
    largest = largest_code(code.planes, code.thermometer)
    return decoded(g, code.filters, list(code.factors), code.constant, largest)


def _lengths(g: Recorder, lengths: list[int]) -> str:
    return g.constant_of(torch.tensor(lengths), "lengths")


def _bytes(codes: Tensor, bits: int) -> Tensor:
    """Codes of so many bits in bytes, the first in the lowest bits; uint8 -> uint8."""
    per = 8 // bits
    padded = torch.cat([codes, codes.new_zeros(-len(codes) % per)]).view(-1, per)
    return (padded.long() << (bits * torch.arange(per))).sum(1).to(torch.uint8)


def _table(bits: int, largest: int) -> Tensor:
    """The integers that each byte holds: (256, 8 / bits)."""
    places = bits * torch.arange(8 // bits)
    codes = (torch.arange(256).unsqueeze(1) >> places) & (2**bits - 1)
    return (2 * codes - largest).clamp_max(largest)
