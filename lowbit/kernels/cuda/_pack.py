"""Coding and packing of floats on a GPU."""

from __future__ import annotations

import ctypes
import math

import torch
from torch import Tensor

from lowbit.functional.packed_conv import check_code
from lowbit.functional.packing import words_for
from lowbit.kernels.cuda import _driver

BLOCK = 256  # threads: 8 warps, as pack.cu has it
WORDS = 4  # that a warp makes, as pack.cu says


class _Pack(ctypes.Structure):
    """``Pack`` of pack.cu."""

    _fields_ = [
        ("x", ctypes.c_void_p),
        ("thresholds", ctypes.c_void_p),
        ("out", ctypes.c_void_p),
        ("images", ctypes.c_longlong),
        ("strides", ctypes.c_longlong * 5),
        ("size", ctypes.c_int * 3),
        ("channels", ctypes.c_int),
        ("groups", ctypes.c_int),
        ("words", ctypes.c_int),
        ("per_channel", ctypes.c_int),
    ]


def pack(
    x: Tensor, thresholds: Tensor | None, planes: int, thermometer: bool, groups: int
) -> Tensor:
    """``lowbit::pack`` on a GPU."""
    check_code(x, thresholds, planes, thermometer, groups)
    n, c, *spatial = x.shape
    words = words_for(c // groups)
    out = x.new_empty((n, planes * groups * words, *spatial), dtype=torch.int64)
    if out.numel() == 0:
        return out
    missing = 3 - len(spatial)
    size = (*[1] * missing, *spatial)
    strides = (*x.stride()[:2], *[0] * missing, *x.stride()[2:])
    # A warp that reads along the channels is the better one where pixels are far from each other.
    along = x.stride(1) == 1
    if thresholds is not None:
        if thresholds.device != x.device:
            raise ValueError(f"thresholds lie on {thresholds.device}, the input on {x.device}")
        thresholds = thresholds.contiguous()
    pixels = math.prod(spatial)
    if along:
        warps = n * groups * -(-words // WORDS) * pixels
        blocks, shared = -(-warps // (BLOCK // 32)), 0
    else:
        blocks, shared = n * groups * words * -(-pixels // 32), planes * BLOCK
    launch = _driver.kernel(
        "pack",
        (("PLANES", planes), ("THERMOMETER", int(thermometer)), ("ALONG_CHANNELS", int(along))),
        x.device,
    )
    params = _Pack(
        x.data_ptr(),
        None if thresholds is None else thresholds.data_ptr(),
        out.data_ptr(),
        n,
        strides,
        size,
        c,
        groups,
        words,
        int(thresholds is not None and thresholds.ndim == 2),
    )
    launch((blocks, 1, 1), BLOCK, shared, params)
    return out
