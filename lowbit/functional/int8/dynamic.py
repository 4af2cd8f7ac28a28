"""Float in, float out, with integers between: weights are int8, inputs are quantized on the way.

One scale and zero point are chosen for the whole input of each call, ``dynamic_qparams``. The
sums of products are exact, and become real as ``epilogue`` says; nothing is rounded to integers
again. An input with NaN or infinity has no range: every output is NaN.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from lowbit.functional import int8
from lowbit.functional.int8.conv import conv as convolve
from lowbit.functional.int8.conv import conv_transpose as convolve_transposed
from lowbit.functional.int8.linear import linear as multiply


class Matrix(NamedTuple):
    """What multiplies an input: (values - zero_point) * scale, and what is added then.

    values      int8; or, of ``linear``, float16, which stands for itself
    scale       float64, of no dimension or one for each output channel; None for float16
    zero_point  int64 in the shape of ``scale``; None for float16
    bias        float32, one for each output channel, or None
    """

    values: Tensor
    scale: Tensor | None
    zero_point: Tensor | None
    bias: Tensor | None

    def integers(self) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
        """The four of an int8 matrix; TypeError for float16, which only ``linear`` takes."""
        if self.scale is None:
            raise TypeError(f"a weight of {self.values.dtype} is not one of integers with a scale")
        return self.values, self.scale, self.zero_point, self.bias


Project = Callable[[Tensor, Matrix], Tensor]


def linear(x: Tensor, weight: Matrix, reduce_range: bool = True, relu: bool = False) -> Tensor:
    """x (..., k) times the transpose of ``weight`` (n, k), plus bias: (..., n) in the dtype of x.

    ``reduce_range`` quantizes x to 7 bits in place of 8.
    """
    if weight.scale is None:
        y = F.linear(x.float(), weight.values.float(), weight.bias)
        return (y.relu() if relu else y).to(x.dtype)

    def run(codes: Tensor, scale: float, zero_point: int) -> Tensor:
        parts = weight.integers()
        return multiply(codes, scale, zero_point, *parts, out_dtype=torch.float32, relu=relu)

    return through_integers(x, reduce_range, run)


def conv(
    x: Tensor,
    weight: Matrix,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int = 1,
    reduce_range: bool = True,
) -> Tensor:
    """Convolution of x (n, c, ...) in 1 to 3 dimensions, in the dtype of x; padding is real 0."""

    def run(codes: Tensor, scale: float, zero_point: int) -> Tensor:
        return convolve(
            *(codes, scale, zero_point, *weight.integers()),
            *(stride, padding, dilation, groups),
            out_dtype=torch.float32,
        )

    return through_integers(x, reduce_range, run)


def conv_transpose(
    x: Tensor,
    weight: Matrix,
    stride: Sequence[int],
    padding: Sequence[int],
    output_padding: Sequence[int],
    groups: int,
    dilation: Sequence[int],
    reduce_range: bool = True,
) -> Tensor:
    """Transposed convolution of x (n, c, ...), in the dtype of x; ``weight`` (c, o/groups, ...).

    The scales of the weight lie along its second axis, o/groups of them.
    """

    def run(codes: Tensor, scale: float, zero_point: int) -> Tensor:
        return convolve_transposed(
            *(codes, scale, zero_point, *weight.integers()),
            *(stride, padding, output_padding, groups, dilation),
            out_dtype=torch.float32,
        )

    return through_integers(x, reduce_range, run)


def through_integers(
    x: Tensor, reduce_range: bool, run: Callable[[Tensor, float, int], Tensor]
) -> Tensor:
    """``run(codes, scale, zero_point)`` of a quantized x, in the dtype of x; NaN of no range."""
    finite = bool(x.isfinite().all())
    known = x.float() if finite else torch.zeros_like(x, dtype=torch.float32)
    scale, zero_point = int8.dynamic_qparams(known, reduce_range)
    y = run(int8.quantize(known, scale, zero_point, torch.uint8), scale, zero_point)
    return (y if finite else torch.full_like(y, torch.nan)).to(x.dtype)
