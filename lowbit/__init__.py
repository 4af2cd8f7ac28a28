"""lowbit: binary and low-bit neural networks on PyTorch."""

from lowbit import functional, models, nn, optim, quantizers
from lowbit._registry import UnknownNameError
from lowbit._version import __version__
from lowbit.convert import convert
from lowbit.quantizers import Quantizer

__all__ = [
    "Quantizer",
    "UnknownNameError",
    "__version__",
    "convert",
    "functional",
    "models",
    "nn",
    "optim",
    "quantizers",
]
