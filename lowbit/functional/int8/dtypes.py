"""Names of integer dtypes, ours and those of torch's quantized tensors, and their ranges."""

from __future__ import annotations

import torch

_PLAIN = {
    "uint8": torch.uint8,
    "quint8": torch.uint8,
    "int8": torch.int8,
    "qint8": torch.int8,
    "int32": torch.int32,
    "qint32": torch.int32,
}
_LIMITS = {
    torch.uint8: (0, 255),
    torch.int8: (-128, 127),
    torch.int32: (-(2**31), 2**31 - 1),
}


def plain_dtype(dtype: torch.dtype | str) -> torch.dtype:
    """``torch.uint8``, ``int8`` or ``int32`` for a dtype of either world, or its name.

    The quantized dtypes are known by their names alone, so that they may be absent from torch.

    >>> plain_dtype("quint8"), plain_dtype("torch.qint32"), plain_dtype(torch.int8)
    (torch.uint8, torch.int32, torch.int8)
    """
    if isinstance(dtype, torch.dtype) and dtype in _LIMITS:
        return dtype
    found = _PLAIN.get(str(dtype).removeprefix("torch."))
    if found is None:
        raise ValueError(f"no integer dtype {dtype!r}; known: {', '.join(_PLAIN)}")
    return found


def limits(dtype: torch.dtype) -> tuple[int, int]:
    """The least and the greatest integer of a plain dtype.

    >>> limits(torch.int8)
    (-128, 127)
    """
    return _LIMITS[dtype]
