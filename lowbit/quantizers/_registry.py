"""The table of quantizers. ``register`` is how a class enters it."""

from lowbit._registry import Registry
from lowbit.quantizers._base import Quantizer

quantizers: Registry[Quantizer] = Registry("quantizer", Quantizer)
register = quantizers.register
