"""int8: ``prepare``, ``prepare_qat``, ``quantize_dynamic``, and what ``convert`` runs."""

from lowbit.convert.int8._convert import describe, to_int8
from lowbit.convert.int8._dynamic import quantize_dynamic
from lowbit.convert.int8._grids import NoInt8, int8_twin
from lowbit.convert.int8._prepare import is_prepared, prepare, prepare_qat

__all__ = [
    "NoInt8",
    "describe",
    "int8_twin",
    "is_prepared",
    "prepare",
    "prepare_qat",
    "quantize_dynamic",
    "to_int8",
]
