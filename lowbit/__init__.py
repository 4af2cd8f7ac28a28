"""lowbit: binary and low-bit neural networks on PyTorch."""

from typing import TYPE_CHECKING, Any

from lowbit import functional, models, nn, optim, quantizers
from lowbit._registry import UnknownNameError
from lowbit._version import __version__
from lowbit.convert import convert, prepare, prepare_qat, quantize_dynamic
from lowbit.files import PackedFileError, load_packed, save_packed
from lowbit.qtensor import QTensor, dequantize, quantize_per_channel, quantize_per_tensor
from lowbit.quantizers import Quantizer
from lowbit.summary import summary

if TYPE_CHECKING:
    from lowbit import export

__all__ = [
    "PackedFileError",
    "QTensor",
    "Quantizer",
    "UnknownNameError",
    "__version__",
    "convert",
    "dequantize",
    "export",
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


def __getattr__(name: str) -> Any:
    """``lowbit.export``, imported when it is first asked for: few programs write such files."""
    if name == "export":
        import lowbit.export

        return lowbit.export
    raise AttributeError(f"module 'lowbit' has no attribute {name!r}")
