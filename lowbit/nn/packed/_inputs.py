"""How an input quantizer is replaced by thresholds: found by trial, on the quantizer itself.

Floats are in order as the integers of their bits are, so bisection finds, for each channel, the
very number at which the output changes, whatever is rounded on the way.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor

from lowbit.functional.packed_geometry import largest_code, threshold_count
from lowbit.nn.packed._errors import ULP, CannotPack
from lowbit.quantizers import Quantizer

FLOAT = torch.float32  # of packed layers, whatever the default is
INFINITY = 0x7F800000  # the bits of +inf in float32
# Some quantizers give NaN for infinities, or where a quotient overflows; up to here none does.
HUGE = 0x71800000  # the bits of 2^100
MOST_LEVELS = 256
Values: TypeAlias = Callable[[Tensor], Tensor]


class InputCode(NamedTuple):
    """x = step / 2 (A + offset), with A coded by ``thresholds`` (None: the sign of x)."""

    planes: int
    thermometer: bool
    thresholds: Tensor | None
    step: float
    offset: float


class _Jumps(NamedTuple):
    """Where the output changes: from ``below`` to ``above`` at the float of this order."""

    channel: Tensor
    order: Tensor
    below: Tensor
    above: Tensor


def input_code(quantizer: Quantizer | None, channels: int, dims: int) -> InputCode:
    """The code of a quantizer for inputs (n, channels, ...) with ``dims`` axes after these.

    Raises ``CannotPack`` where it has none: values that depend on other elements or on chance,
    that lie on no uniform grid common to all channels, or that are too many.
    """
    if quantizer is None:
        raise CannotPack("the input is full precision: name an input quantizer")
    quantizer = copy.deepcopy(quantizer).float().eval()

    @torch.no_grad()
    def values(x: Tensor) -> Tensor:
        y = quantizer(x.reshape(*x.shape, *[1] * (dims + 2 - x.ndim)))
        return y.reshape(x.shape).double()

    _check_local(values, quantizer.name, channels, dims)
    single = all(t.numel() == 1 for t in quantizer.state_dict().values())
    found = _alike(values, quantizer.name, channels) if single else None
    code, thresholds = found or _each(values, quantizer.name, channels)
    if bool((thresholds == thresholds[:, :1]).all()):
        thresholds = thresholds[:, 0].contiguous()
        if thresholds.numel() == 1 and thresholds.item() == 0:
            return code
    return code._replace(thresholds=thresholds)


def _alike(values: Values, name: str, channels: int) -> tuple[InputCode, Tensor] | None:
    """The code and the thresholds of the first channel, where they are those of all; else None.

    Bisecting each of 512 channels of 256 values takes 3.7 s, this 0.24 s on the same machine.
    """

    def first(x: Tensor) -> Tensor:
        return values(x.expand(-1, channels).contiguous())[:, :1]

    try:
        code, thresholds = _code(_jumps(first, name, 1), name, 1)
        thresholds = thresholds.expand(-1, channels).contiguous()
        _verify(values, code, thresholds, name)
    except CannotPack:
        return None
    return code, thresholds


def _each(values: Values, name: str, channels: int) -> tuple[InputCode, Tensor]:
    code, thresholds = _code(_jumps(values, name, channels), name, channels)
    _verify(values, code, thresholds, name)
    return code, thresholds


def _check_local(values: Values, name: str, channels: int, dims: int) -> None:
    """Refuse a quantizer whose output for an element depends on another one, or on chance."""
    generator = torch.Generator().manual_seed(0)
    shape = (4, channels, *[3] * dims)
    x, other = (torch.randn(shape, generator=generator, dtype=FLOAT) for _ in range(2))
    kept = torch.rand(shape, generator=generator) < 0.5
    kept[0], kept[-1] = True, False
    y = values(x)
    if not torch.equal(y, values(x)):
        raise CannotPack(f"{name} of the input is drawn at random")
    moved = values(torch.where(kept, x, 100 * other))
    # Two axes of the layout at a time: all elements, and each alone.
    alone = values(x[:1, :, *[slice(0, 1)] * dims]) if dims else values(x[:1])
    apart = y[:1, :, *[slice(0, 1)] * dims] if dims else y[:1]
    if not torch.equal(moved[kept], y[kept]) or not torch.equal(alone, apart):
        raise CannotPack(
            f"{name} of the input depends on the data at hand (a mean, a range), not on the "
            "element alone: use an input quantizer with fixed parameters"
        )


def float_of(order: Tensor) -> Tensor:
    """The float32 of this place in the order; 0 is +0.0, and -0.0 has no place of its own.

    >>> float_of(torch.tensor([-1, 0, 1, INFINITY]))
    tensor([-1.4013e-45,  0.0000e+00,  1.4013e-45,         inf])
    """
    bits = torch.where(order < 0, -order - 2**31, order)
    return bits.to(torch.int32).view(torch.float32)


def _jumps(values: Values, name: str, channels: int) -> _Jumps:
    """Every place where the output of a channel changes, ascending in each channel."""

    def at(channel: Tensor, order: Tensor) -> Tensor:
        # One column for each channel, its questions one under the other.
        counts = torch.bincount(channel, minlength=channels)
        row = torch.arange(len(channel)) - (counts.cumsum(0) - counts)[channel]
        table = torch.zeros(int(counts.max()), channels, dtype=FLOAT)
        table[row, channel] = float_of(order)
        return values(table)[row, channel]

    channel = torch.arange(channels)
    for end in (INFINITY, HUGE):
        low, high = torch.full((channels,), -end), torch.full((channels,), end)
        below, above = at(channel, low), at(channel, high)
        if not bool((below + above).isnan().any()):
            break
    else:
        raise CannotPack(f"{name} of the input gives NaN for a number")
    while bool((high - low > 1).any()):
        middle = (low + high).div(2, rounding_mode="floor")
        between = at(channel, middle)
        wide = high - low > 1
        halves = [
            (channel, low, torch.where(wide, middle, high), below, between.where(wide, above)),
            (channel, middle, high, between, above),
        ]
        keep = [h[3] != h[4] for h in halves]
        keep[1] &= wide
        channel, low, high, below, above = (
            torch.cat([h[i][k] for h, k in zip(halves, keep, strict=True)]) for i in range(5)
        )
        order = torch.argsort(low)
        order = order[torch.argsort(channel[order], stable=True)]
        channel, low, high, below, above = (t[order] for t in (channel, low, high, below, above))
        if len(channel) and int(torch.bincount(channel).max()) >= MOST_LEVELS:
            raise CannotPack(f"{name} gives the input more than {MOST_LEVELS} values")
    changes = below != above
    return _Jumps(channel[changes], high[changes], below[changes], above[changes])


def _code(jumps: _Jumps, name: str, channels: int) -> tuple[InputCode, Tensor]:
    """The code of a step function, and its thresholds (T, channels)."""
    up = bool((jumps.above > jumps.below).all())
    if not up and not bool((jumps.above < jumps.below).all()):
        raise CannotPack(f"{name} of the input is not monotonic")
    if len(jumps.channel.unique()) < channels:
        raise CannotPack(f"{name} gives a channel of the input one value only")
    levels = torch.cat([jumps.below, jumps.above]).unique()
    levels = levels if up else levels.flip(0)
    count = len(levels)
    largest = float(levels.abs().max())
    step = float(levels[-1] - levels[0]) / (count - 1)
    grid = levels[0] + step * torch.arange(count, dtype=torch.float64)
    if count > MOST_LEVELS or bool(((levels - grid).abs() > ULP * largest).any()):
        own = _level_counts(jumps, channels)
        if bool((own < count).any()):
            raise CannotPack(
                f"{name} gives the channels of the input different values, which cannot leave "
                "the sum over channels: use one step for all channels"
            )
        raise CannotPack(f"{name} gives the input {count} values that lie on no uniform grid")
    thermometer = count == 3
    planes = 2 if thermometer else (count - 1).bit_length()
    # Threshold j: x is below it where its level is j or lower.
    ascending = levels if up else levels.flip(0)
    start, end = (torch.searchsorted(ascending, v) for v in (jumps.below, jumps.above))
    if not up:
        start, end = count - 1 - start, count - 1 - end
    thresholds = torch.full((count - 1, channels), math.nan, dtype=FLOAT)
    lowest = torch.full((channels,), count).scatter_reduce(0, jumps.channel, start, "amin")
    for j, row in enumerate(thresholds):
        crossed = (start <= j) & (j < end)
        row[jumps.channel[crossed]] = float_of(jumps.order[crossed])
        row[j < lowest] = -math.inf
    if bool(thresholds.isnan().any()):
        c = int(thresholds.isnan().any(0).nonzero()[0])
        raise CannotPack(f"{name} never gives channel {c} of the input the largest value of others")
    unused = threshold_count(planes, thermometer) - (count - 1)
    thresholds = torch.cat([thresholds.new_full((unused, channels), -math.inf), thresholds])
    smallest = largest_code(planes, thermometer) - 2 * (count - 1)
    offset = 2 * float(levels[0]) / step - smallest
    if abs(offset - round(offset)) * abs(step) / 2 <= ULP * largest:
        offset = float(round(offset))
    return InputCode(planes, thermometer, None, step, offset), thresholds


def _level_counts(jumps: _Jumps, channels: int) -> Tensor:
    return torch.bincount(jumps.channel, minlength=channels) + 1


def _verify(values: Values, code: InputCode, thresholds: Tensor, name: str) -> None:
    """Compare code and quantizer on drawn numbers and around every threshold."""
    channels = thresholds.shape[1]
    generator = torch.Generator().manual_seed(1)
    drawn = torch.randn(256, channels, generator=generator, dtype=FLOAT)
    drawn *= 10 ** (4 * torch.rand(256, 1, generator=generator, dtype=FLOAT) - 2)
    special = drawn.new_tensor([math.inf, -math.inf, 0.0, -0.0, 1e-45, -1e-45, 3e38, -3e38])
    sides = [torch.nextafter(thresholds, drawn.new_tensor(end)) for end in (-math.inf, math.inf)]
    x = torch.cat([drawn, special.unsqueeze(1).expand(-1, channels), thresholds, *sides])
    ascending = thresholds.t().contiguous().sort().values
    r = len(thresholds) - torch.searchsorted(ascending, x.t().contiguous(), right=True).t()
    a = largest_code(code.planes, code.thermometer) - 2 * r
    found = code.step / 2 * (a.double() + code.offset)
    expected = values(x)
    expected = torch.where(
        expected.isnan() & (x.abs() > float_of(torch.tensor(HUGE))), found, expected
    )
    if not bool(((found - expected).abs() <= 2 * ULP * expected.abs().max()).all()):
        raise CannotPack(f"{name} of the input is no step function of ascending thresholds")
