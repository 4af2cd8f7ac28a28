"""The range of a histogram that loses least when it is quantized."""

from __future__ import annotations

from bisect import bisect_left, bisect_right

import torch
from torch import Tensor

# How much of the mass a step of the search cuts off.
_STEP = 1e-5


def best_range(
    histogram: Tensor, minimum: Tensor, maximum: Tensor, codes: int
) -> tuple[Tensor, Tensor]:
    """A range within [minimum, maximum] with a small squared error in ``codes`` integers.

    From the whole range, 1e-5 of the mass at a time is cut off on the side where that removes
    more bins, until the error would grow. ``histogram`` is (bins,) float32 counts over
    [minimum, maximum]. Greedy, in the arithmetic of torch.ao's HistogramObserver, so that it
    finds the same range.

    Source: caffe2/quantization/server, NormMinimization::NonlinearQuantizationParamsSearch.
    """
    bins = histogram.numel()
    if not bool(maximum > minimum):
        return minimum, maximum
    width = (maximum.item() - minimum.item()) / bins
    mass = torch.cumsum(histogram, dim=0)
    below = mass.tolist()
    total = histogram.sum().item()

    def as_mass(fraction: float) -> float:
        return mass.new_tensor(fraction * total).item()

    first, last = 0, bins - 1
    lower, upper = 0.0, 1.0
    least = float("inf")
    while lower < upper:
        left = min(bisect_left(below, as_mass(lower + _STEP), first), last)
        right = max(bisect_right(below, as_mass(upper - _STEP), 0, last + 1) - 1, first)
        if left - first > last - right:
            lower += _STEP
            proposed = (left, last)
        else:
            upper -= _STEP
            proposed = (first, right)
        if proposed == (first, last):
            continue
        error = squared_error(histogram, width, *proposed, codes)
        if error > least:
            break
        least = error
        first, last = proposed
    step = (maximum - minimum) / bins
    return minimum + step * first, minimum + step * (last + 1)


def squared_error(histogram: Tensor, width: float, first: int, last: int, codes: int) -> float:
    """The summed squared error of quantizing a histogram with the bins first … last in ``codes``.

    Each bin's mass is spread evenly over its ``width``. Every piece of it that one code covers
    adds density * (integral of the squared distance to the code's centre); what lies outside is
    measured from the outermost codes.
    """
    cell = width * (last - first + 1) / codes
    if cell == 0:
        return 0.0
    begin = (torch.arange(len(histogram), device=histogram.device) - first).float() * width
    end = begin + width
    density = histogram / width
    code_of_begin = _code(begin, cell, codes)
    code_of_end = _code(end, cell, codes)

    half = begin.new_tensor(cell / 2)
    head = _integral(begin - (code_of_begin + 0.5) * cell, half)
    between = code_of_end - code_of_begin - 1
    tail = _integral(-half, end - (code_of_end * cell + cell / 2))
    error = density * head + between * (density * _integral(-half, half)) + density * tail
    return error.sum().item()


def _code(edge: Tensor, cell: float, codes: int) -> Tensor:
    return torch.div(edge, cell, rounding_mode="floor").clamp(0, codes - 1)


def _integral(begin: Tensor, end: Tensor) -> Tensor:
    """The integral of x^2 from begin to end."""
    return (end * end * end - begin * begin * begin) / 3


def rebinned(
    histogram: Tensor, old: tuple[Tensor, Tensor], new: tuple[Tensor, Tensor], pieces: int = 16
) -> Tensor:
    """The counts of a histogram over the range ``old`` in bins over ``new``, which includes it.

    Each bin is cut into 16 pieces, whose midpoints decide where they go. A range of one value
    goes to one bin.
    """
    bins = histogram.numel()
    if old == new:
        return histogram
    if bool(old[0] == old[1]):
        one = torch.histc(old[0], bins=bins, min=new[0].item(), max=new[1].item())
        return one * histogram.sum()
    piece = (old[1] - old[0]) / (bins * pieces)
    midpoints = torch.linspace(*old, bins * pieces + 1)[:-1] + 0.5 * piece
    target = torch.bucketize(midpoints, torch.linspace(*new, bins + 1), right=True) - 1
    return torch.bincount(
        target.clamp(0, bins - 1),
        weights=histogram.repeat_interleave(pieces) / pieces,
        minlength=bins,
    )
