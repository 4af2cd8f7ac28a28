"""Whether torch's int8 products give the right integers here."""

from __future__ import annotations

import functools
import warnings

import torch
from torch import Tensor

from lowbit.kernels import int8
from lowbit.kernels.int8_dynamic import _products
from lowbit.kernels.int8_dynamic._packed import pack


def available() -> bool:
    """Whether int8 matrices are multiplied fast and exactly here."""
    return int8.available()


@functools.cache
def ready() -> bool:
    """``available()``, and a warning where it is not."""
    if not available():
        warnings.warn(
            f"dynamic int8 layers run in plain torch here, slowly: {int8.why_not()}", stacklevel=2
        )
    return available()


@functools.cache
def int_mm_available() -> bool:
    """Whether ``torch._int_mm`` multiplies uint8 and int8 exactly here. Tries it once.

    torch 2.11 takes int8 alone; without VNNI pairs of products overflow 16 bits.
    """
    codes, weight = _extremes(9, 80, 0, 255).to(torch.uint8), _extremes(32, 80, -128, 127).char()
    expected = (codes.double() - 100) @ weight.double().T
    one, zero = torch.ones((), dtype=torch.float64), torch.zeros((), dtype=torch.int64)
    try:
        packed = pack(weight, one, zero)
        found = [
            _products.by_int_mm(rows, 1.0, 100, packed, None, False) for rows in (codes, codes[:1])
        ]
    except (AttributeError, RuntimeError, TypeError, NotImplementedError):
        return False
    return all(torch.equal(y.double(), expected[: len(y)]) for y in found)


def _extremes(rows: int, columns: int, low: int, high: int) -> Tensor:
    """Integers from low to high, two thirds of them at the ends, where sums of pairs overflow."""
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randint(2 * low - high, 2 * high - low, (rows, columns), generator=generator)
    return drawn.clamp(low, high)
