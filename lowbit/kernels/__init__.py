"""The operators of packed layers: compiled, or where they are not, their specification.

``torch.ops.lowbit`` has prepare, pack, bconv, bconv_both and max_pool_bits either way.
``LOWBIT_ISA`` in the environment names the instruction set to use in place of the best.
"""

from __future__ import annotations

import functools
import os

import torch

from lowbit.functional.packed_conv import (
    AFFINE,
    BITS,
    FLOAT,
    HARDTANH,
    INT,
    PRELU,
    RELU,
    RESIDUAL,
    SHIFT,
)
from lowbit.functional.packed_geometry import Geometry
from lowbit.kernels import _fallback, _library, cuda
from lowbit.kernels._ops import (
    bconv,
    bconv_both,
    max_pool_bits,
    pack,
    prepare,
    register_fakes,
)

_why_not = _library.load()
_registered = None if _why_not is None else _fallback.register(_why_not)
_on_cuda = cuda.register()
register_fakes()


def available() -> bool:
    """Whether the compiled kernels are loaded; else the specification runs, in plain torch."""
    return _why_not is None


@functools.cache
def isas() -> tuple[str, ...]:
    """The instruction sets that this machine runs, best first; "reference" when not compiled."""
    if not available():
        return (_fallback.NAME,)
    return tuple(torch.ops.lowbit.isas().split(","))


def isa() -> str:
    """The instruction set in use: the best, or LOWBIT_ISA.

    Raises ``ValueError`` where LOWBIT_ISA names none of ``isas()``.
    """
    chosen = os.environ.get("LOWBIT_ISA", "")
    if not chosen:
        return isas()[0]
    if chosen not in isas():
        raise ValueError(
            f"LOWBIT_ISA={chosen!r} is none of the instruction sets that run here: "
            f"{', '.join(isas())}"
        )
    return chosen


__all__ = [
    "AFFINE",
    "BITS",
    "FLOAT",
    "HARDTANH",
    "INT",
    "PRELU",
    "RELU",
    "RESIDUAL",
    "SHIFT",
    "Geometry",
    "available",
    "bconv",
    "bconv_both",
    "isa",
    "isas",
    "max_pool_bits",
    "pack",
    "prepare",
]
