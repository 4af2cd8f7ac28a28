"""Signs on a GPU in one pass: compared, converted and padded, where torch would take seven."""

from __future__ import annotations

import functools
import importlib.util

import torch
import torch.nn.functional as F
from torch import Tensor

from lowbit.functional.sign import sign

BLOCK = 1024
LARGEST = 2**31 - BLOCK  # the kernel counts elements in 32 bits


@functools.cache
def available() -> bool:
    """Whether Triton is there and its kernel gives the signs that it should on this GPU."""
    if not torch.cuda.is_available() or importlib.util.find_spec("triton") is None:
        return False
    x = torch.tensor([[[-2.0, -0.0, 0.0], [1e-45, -1e-45, float("nan")]]], device="cuda")
    expected = F.pad(sign(x), (2, 2, 1, 1), value=-1.0)
    found = padded_signs(x[None], torch.float32, (1, 2), -1.0)
    return torch.equal(found[0].nan_to_num(7.0), expected.nan_to_num(7.0))


def usable(x: Tensor) -> bool:
    """Whether ``padded_signs`` takes x: on a GPU, dense in either layout, not too large."""
    return x.is_cuda and dense(x) and available()


def dense(x: Tensor) -> bool:
    """Whether x lies in memory without gaps, contiguous or channels-last, and is not too large."""
    # A padding of 1 makes a map of one pixel nine times as large.
    return 0 < x.numel() < LARGEST // 9 and (
        x.is_contiguous() or (x.ndim == 4 and x.is_contiguous(memory_format=torch.channels_last))
    )


def padded_signs(
    x: Tensor, dtype: torch.dtype, padding: tuple[int, int] = (0, 0), pad_value: float = 0.0
) -> Tensor:
    """sign(x) in ``dtype``, with ``pad_value`` around its last two axes; NaN stays NaN.

    x as ``usable`` says; ``padding`` of height and width, at both ends, which x has axes for.
    The layout of x is kept.
    """
    from lowbit.nn._sign_kernel import sign_kernel

    above, beside = padding
    shape = list(x.shape)
    height = width = 1
    if above or beside:
        height, width = shape[-2:]
        shape[-2:] = [height + 2 * above, width + 2 * beside]
    last = x.ndim == 4 and not x.is_contiguous()
    layout = torch.channels_last if last else torch.contiguous_format
    y = torch.empty(shape, dtype=dtype, device=x.device, memory_format=layout)
    inner = x.shape[1] if last else 1
    if not (above or beside):
        height, width, inner = 1, 1, 16  # one run of elements, in whichever order they lie
    grid = ((y.numel() + BLOCK - 1) // BLOCK,)
    with torch.cuda.device_of(x):
        sign_kernel()[grid](
            x, y, y.numel(), height, width, inner, above, beside, float(pad_value), block=BLOCK
        )
    return y
