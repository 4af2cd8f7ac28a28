"""From training layers to inference layers: ``lowbit.convert(model)``."""

from lowbit.convert._convert import Converted, convert
from lowbit.convert._report import Report, Row
from lowbit.convert.int8 import prepare, prepare_qat, quantize_dynamic

__all__ = [
    "Converted",
    "Report",
    "Row",
    "convert",
    "prepare",
    "prepare_qat",
    "quantize_dynamic",
]
