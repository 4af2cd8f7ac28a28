"""Max-pooling of packed signs on a GPU."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from lowbit.functional.packed_conv import check_pool
from lowbit.kernels.cuda import _driver

BLOCK = 256


class _Pool(ctypes.Structure):
    """``Pool`` of pool.cu."""

    _fields_ = [
        ("x", ctypes.c_void_p),
        ("flip", ctypes.c_void_p),
        ("out", ctypes.c_void_p),
        ("count", ctypes.c_longlong),
        ("words", ctypes.c_int),
        ("in_size", ctypes.c_int * 2),
        ("size", ctypes.c_int * 2),
        ("kernel", ctypes.c_int * 2),
        ("stride", ctypes.c_int * 2),
        ("padding", ctypes.c_int * 2),
        ("dilation", ctypes.c_int * 2),
    ]


def max_pool_bits(
    x: Tensor,
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    ceil_mode: bool,
    flip: Tensor | None,
) -> Tensor:
    """``lowbit::max_pool_bits`` on a GPU."""
    check_pool(x, flip)
    # torch's own pooling has the rules of its shapes.
    image = torch.empty(1, 1, *x.shape[2:], device="meta")
    k, s, p, d = (list(numbers) for numbers in (kernel, stride, padding, dilation))
    size = F.max_pool2d(image, k, s, p, d, ceil_mode).shape[2:]
    out = x.new_empty((*x.shape[:2], *size))
    if out.numel() == 0:
        return out
    x = x.contiguous()
    flip = None if flip is None else flip.contiguous()
    params = _Pool(
        x.data_ptr(),
        None if flip is None else flip.data_ptr(),
        out.data_ptr(),
        out.numel(),
        x.shape[1],
        tuple(x.shape[2:]),
        tuple(size),
        tuple(kernel),
        tuple(stride),
        tuple(padding),
        tuple(dilation),
    )
    launch = _driver.kernel("pool", (), x.device)
    launch((-(-out.numel() // BLOCK), 1, 1), BLOCK, 0, params)
    return out
