"""Memory for what lives within one operation, kept between calls.

A large tensor that is made and dropped in every layer costs more in page faults than in
arithmetic: the operating system clears each page anew.
"""

from __future__ import annotations

import threading

import torch
from torch import Tensor

# Larger ones are allocated as usual, so that little stays behind after training.
LARGEST_BYTES = 128 * 2**20


class _Buffers(threading.local):
    def __init__(self) -> None:
        self.of: dict[tuple[str, torch.dtype], Tensor] = {}


_buffers = _Buffers()


def scratch(slot: str, like: Tensor) -> Tensor:
    """An uninitialised tensor with the shape, layout and dtype of ``like``, on the processor.

    It is overwritten by the next call with the same ``slot`` in this thread: never return it,
    and never save it for backward.
    """
    count = like.numel()
    dense = like.is_contiguous() or (
        like.ndim == 4 and like.is_contiguous(memory_format=torch.channels_last)
    )
    if not dense or count * like.element_size() > LARGEST_BYTES:
        return torch.empty_like(like)
    key = (slot, like.dtype)
    buffer = _buffers.of.get(key)
    if buffer is None or buffer.numel() < count:
        with torch.inference_mode(False):  # what is made under it cannot be written outside
            buffer = torch.empty(count, dtype=like.dtype, device="cpu")
        _buffers.of[key] = buffer
    return buffer.as_strided(like.shape, like.stride())
