"""lowbit: binary and low-bit neural networks on PyTorch."""

from lowbit import functional, models, nn, optim, quantizers
from lowbit._registry import UnknownNameError
from lowbit._version import __version__
from lowbit.convert import convert, prepare, prepare_qat, quantize_dynamic
from lowbit.files import PackedFileError, load_packed, save_packed
from lowbit.qtensor import QTensor, dequantize, quantize_per_channel, quantize_per_tensor
from lowbit.quantizers import Quantizer
from lowbit.summary import summary

__all__ = [
    "PackedFileError",
    "QTensor",
    "Quantizer",
    "UnknownNameError",
    "__version__",
    "convert",
    "dequantize",
    "functional",
    "load_packed",
    "models",
    "nn",
    "optim",
    "prepare",
    "prepare_qat",
    "quantize_dynamic",
    "quantize_per_channel",
    "quantize_per_tensor",
    "quantizers",
    "save_packed",
    "summary",
]
