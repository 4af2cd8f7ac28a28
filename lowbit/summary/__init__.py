"""A model layer by layer, before and after conversion: ``lowbit.summary(model, input_shape)``."""

from lowbit.summary._result import LayerRow, Macs, Summary
from lowbit.summary._summary import summary

__all__ = ["LayerRow", "Macs", "Summary", "summary"]
