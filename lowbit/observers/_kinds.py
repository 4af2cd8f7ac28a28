"""What an observer is told to aim at: dtype, range of integers, scheme."""

from __future__ import annotations

from typing import Any

import torch

from lowbit.functional.int8.dtypes import limits, plain_dtype

# Codes narrower than a byte, which are kept in one.
_NARROW = {"quint4x2": 4, "uint4": 4, "quint2x4": 2, "uint2": 2}

PER_TENSOR = ("per_tensor_affine", "per_tensor_symmetric")
PER_CHANNEL = (
    "per_channel_affine",
    "per_channel_symmetric",
    "per_channel_affine_float_qparams",
)


def bare(name: object) -> str:
    """``"quint8"`` for ``torch.quint8`` and its like, and for the string."""
    return str(name).removeprefix("torch.")


def integers(dtype: torch.dtype | str) -> tuple[torch.dtype, int, int]:
    """The plain dtype that holds the integers of ``dtype``, and the least and greatest of them.

    >>> integers("quint8"), integers("quint4x2")
    ((torch.uint8, 0, 255), (torch.uint8, 0, 15))
    """
    bits = _NARROW.get(bare(dtype))
    if bits is not None:
        return torch.uint8, 0, 2**bits - 1
    plain = plain_dtype(dtype)
    return plain, *limits(plain)


def any_dtype(dtype: torch.dtype | str) -> torch.dtype:
    """The plain dtype for integers, floating-point dtypes as they are."""
    found = getattr(torch, bare(dtype), None)
    if isinstance(found, torch.dtype) and found.is_floating_point:
        return found
    return integers(dtype)[0]


def chosen_range(
    dtype: torch.dtype | str, quant_min: int | None, quant_max: int | None, reduce_range: bool
) -> tuple[torch.dtype, int, int]:
    """The plain dtype and the integers in use: the dtype's own, or those given.

    ``reduce_range`` leaves half of them: [0, 127], [-64, 63], or both given ends halved.
    Raises ValueError for ends that are not in order around 0, or that the dtype does not hold.
    """
    plain, low, high = integers(dtype)
    if quant_min is not None and quant_max is not None:
        if not quant_min <= 0 <= quant_max or quant_min == quant_max:
            raise ValueError(
                f"the integers {quant_min} … {quant_max} must be in order and include 0, "
                "so that 0 is exact"
            )
        if quant_min < low or quant_max > high:
            raise ValueError(
                f"the integers {quant_min} … {quant_max} must be among those of {bare(dtype)}, "
                f"{low} … {high}"
            )
        low, high = quant_min, quant_max
    elif (quant_min is None) != (quant_max is None):
        raise ValueError(
            f"quant_min={quant_min} and quant_max={quant_max}: give both, or neither for the "
            f"range of {bare(dtype)}"
        )
    if reduce_range and plain != torch.int32:
        low, high = low // 2, high // 2
    return plain, low, high


def scheme(qscheme: Any, allowed: tuple[str, ...], owner: str) -> Any:
    """torch's object for a scheme while it has one, else the name.

    Raises ValueError for schemes that ``owner`` does not have.
    """
    name = bare(qscheme)
    if name not in allowed:
        raise ValueError(f"{owner} has the schemes {', '.join(allowed)}; got {name}")
    return getattr(torch, name, name)
