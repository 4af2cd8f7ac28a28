"""The next layer's sign, decided from the integers of the layer before it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from lowbit.functional.packing import pack_bits
from lowbit.functional.thresholds import integer_thresholds
from lowbit.nn import DPReLU, Maxout, QActivation

# Modules that work on each number by itself, beside those that are steps of the operator.
POINTWISE: tuple[type, ...] = (nn.ReLU6, nn.Hardtanh, DPReLU, Maxout)

# What a trial may hold at once: accumulator values times channels.
MOST_TRIALS = 2**27


class NoThreshold(Exception):
    """Why no integer threshold replaces what stands before a sign."""


class Signs(NamedTuple):
    """Bits (V < threshold) xor flip for each channel; after a pooling, xor ``pool_flip``."""

    params: Tensor  # int32 (2, channels): thresholds, flips
    pool_flip: Tensor | None  # int64 (words,)


def is_pointwise(module: nn.Module) -> bool:
    """Whether each output number depends on the input number in its place, and its channel."""
    if type(module) is QActivation:
        quantizer = module.input_quantization
        return quantizer is not None and quantizer.value_is_sign
    return type(module) in POINTWISE


def signs_by_trial(
    scale: Tensor,
    bias: Tensor,
    before: Sequence[Callable[[Tensor], Tensor]],
    after: Sequence[Callable[[Tensor], Tensor]] | None,
    threshold: Tensor,
    bound: int,
    axes: int,
) -> Signs:
    """When ``after(pool(before(scale V + bias))) < threshold``, for every V to +-``bound``.

    ``before`` and ``after`` are the trained modules, called on float32 tensors with ``axes``
    axes after the channels; ``after`` is None where there is no pooling. ``scale``, ``bias`` and
    ``threshold`` are (channels,).

    A maximum of negatives is negative where all are, so bits are pooled by AND: of (y < t) where
    what stands after the pooling rises, of its complement where that falls. Raises
    ``NoThreshold`` where the sign turns more than once, or the maximum is not that of one end.
    """
    channels = len(scale)
    if (2 * bound + 1) * channels > MOST_TRIALS:
        raise NoThreshold(f"{2 * bound + 1} accumulator values are too many to try one by one")

    def through(modules: Sequence[Callable[[Tensor], Tensor]], y: Tensor) -> Tensor:
        # (values, channels) as one image of many places, which batch norms of every rank take.
        image = y if axes == 0 else y.t().reshape(1, channels, -1, *[1] * (axes - 1))
        for module in modules:
            image = module(image)
        return image if axes == 0 else image.reshape(channels, -1).t()

    pooled: list[Tensor] = []

    def between(v: Tensor) -> Tensor:
        y = through(before, v * scale + bias)
        if after is not None:
            pooled.append(y)
            y = through(after, y)
        below = (y < threshold).to(y.dtype)
        return torch.where(y.isnan(), y, 0.5 - below)

    with torch.no_grad():
        try:
            t, flip = integer_thresholds(between, bound)
        except ValueError as error:
            raise NoThreshold(str(error)) from error
    if after is None:
        return Signs(torch.stack([t, flip.to(torch.int32)]), None)
    falls = _falls(pooled[0])
    pool_flip = pack_bits(flip ^ falls)
    params = torch.stack([t, falls.to(torch.int32)])
    return Signs(params, pool_flip if bool(pool_flip.any()) else None)


def _falls(y: Tensor) -> Tensor:
    """Whether each column falls, from the first row to the last; raises where it does both."""
    rises = (y[1:] >= y[:-1]).all(0)
    falls = (y[1:] <= y[:-1]).all(0)
    if not bool((rises | falls).all()):
        raise NoThreshold("a pooling reads a function of the accumulators that rises and falls")
    return ~rises
