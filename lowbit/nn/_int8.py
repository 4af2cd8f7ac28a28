"""Convolutions of signs by the processor's int8 instructions: the same integers, sooner.

The operators are those that torch compiles int8 networks to. Where they are absent, or do not
give the integers that they should, ``available()`` is False and the float path runs.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

# Below these, packing the weights anew in each call costs more than the arithmetic saves.
LEAST_CHANNELS = 16
LEAST_POSITIONS = 256


@functools.cache
def available() -> bool:
    """Whether this machine and this torch convolve signs in int8, fast and exactly."""
    fast = getattr(torch.cpu, "_is_vnni_supported", lambda: False)
    if not (fast() and hasattr(torch.ops.onednn, "qconv_pointwise")):
        return False
    draw = functools.partial(
        torch.randn, generator=torch.Generator().manual_seed(0), dtype=torch.float32, device="cpu"
    )
    x, weight = draw(1, 32, 5, 5), draw(16, 32, 3, 3)
    layout = ((1, 1), (1, 1), (1, 1))
    for pad_value in (-1.0, 0.0, 1.0):
        # In float64, which autocast leaves alone.
        padded = F.pad((x >= 0).double() * 2 - 1, (1, 1, 1, 1), value=pad_value)
        expected = F.conv2d(padded, (weight >= 0).double() * 2 - 1)
        try:
            found = sign_convolution(x, weight, None, *layout, pad_value)
        except (RuntimeError, TypeError, NotImplementedError):
            return False  # a torch whose operators take other arguments, or none on this device
        if not torch.equal(found.double(), expected):
            return False
    return True


def worthwhile(x: Tensor, weight: Tensor, groups: int, out: Sequence[int]) -> bool:
    """Whether int8 is the faster way for x (n, c, ...) and an output of n times ``out`` places."""
    return (
        groups == 1
        and x.shape[1] >= LEAST_CHANNELS
        and len(x) * math.prod(out) >= LEAST_POSITIONS
        and available()
    )


def sign_convolution(
    x: Tensor,
    weight: Tensor,
    scale: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    pad_value: float,
) -> Tensor:
    """Convolve sign(x), padded with ``pad_value``, with scale * sign(weight), in float32.

    x (n, c, ...) and weight (o, c, ...) without NaN, on the processor; ``scale`` of one value or
    one for each output channel, or None for 1. The sums are exact; each is scaled once.
    """
    if pad_value == 0:
        # Codes 0 and 2 about a zero point of 1: padding has the zero point's value, 0.
        codes, zero_point, factor = (x >= 0).view(torch.uint8).mul_(2), 1, 1
    else:
        # sign = factor * code + pad_value, where the code of the padding is 0.
        codes = (x >= 0 if pad_value == -1 else x < 0).view(torch.uint8)
        zero_point, factor = 0, round(-2 * pad_value)
    signs = (weight >= 0).view(torch.int8).mul_(2 * factor).sub_(factor).contiguous()
    scales = weight.new_ones(len(weight))
    if scale is not None:
        scales.mul_(scale.flatten())
    bias = None
    if pad_value != 0:
        sums = signs.sum(tuple(range(1, signs.ndim)), dtype=torch.int32)
        bias = sums.float().mul_(pad_value / factor).mul_(scales)
    layout = [list(stride), list(padding), list(dilation), 1]
    onednn = torch.ops.onednn
    packed = onednn.qconv_prepack(signs, scales, 1.0, zero_point, *layout, list(codes.shape))
    zeros = weight.new_zeros(len(weight), dtype=torch.int32)
    y = onednn.qconv_pointwise(
        *(codes, 1.0, zero_point, packed, scales, zeros, bias, *layout),
        *(1.0, 0, torch.float32, "none", [], ""),
    )
    # It comes out channels last whatever went in.
    return y.contiguous() if x.is_contiguous() else y
