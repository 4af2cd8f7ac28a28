"""From training layers to inference layers: ``lowbit.convert(model)``."""

from lowbit.convert._convert import Converted, convert
from lowbit.convert._report import Report, Row

__all__ = ["Converted", "Report", "Row", "convert"]
