"""The operators of packed layers on NVIDIA GPUs: CUDA C++, compiled when it is first called.

They need a GPU of compute capability 8.0 or newer, whose matrix units multiply bits, and torch
built for CUDA, which brings NVRTC, the compiler.
"""

from __future__ import annotations

import torch

from lowbit.kernels.cuda._conv import bconv, bconv_both
from lowbit.kernels.cuda._driver import CAPABILITY
from lowbit.kernels.cuda._pack import pack
from lowbit.kernels.cuda._panel import prepare
from lowbit.kernels.cuda._pool import max_pool_bits


def register() -> torch.library.Library:
    """Give the operators their kernels on CUDA; they live as long as what is returned."""
    library = torch.library.Library("lowbit", "FRAGMENT")
    for kernel in (prepare, pack, bconv, bconv_both, max_pool_bits):
        library.impl(kernel.__name__, kernel, "CUDA")
    return library


__all__ = ["CAPABILITY", "bconv", "bconv_both", "max_pool_bits", "pack", "prepare", "register"]
