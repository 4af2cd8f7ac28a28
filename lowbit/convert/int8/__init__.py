"""int8: ``prepare``, ``prepare_qat``, ``quantize_dynamic``, and what ``convert`` runs."""

from lowbit.convert.int8._convert import to_int8
from lowbit.convert.int8._dynamic import quantize_dynamic
from lowbit.convert.int8._prepare import is_prepared, prepare, prepare_qat

__all__ = ["is_prepared", "prepare", "prepare_qat", "quantize_dynamic", "to_int8"]
