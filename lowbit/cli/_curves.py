"""Value and slope of a quantizer, as they are drawn."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from lowbit import quantizers
from lowbit.quantizers import Spec

POINTS = 801  # odd: 0 is one of them
PROGRESS = 0.75
ROWS, COLUMNS = 16, 65  # of a plot in letters
LOWEST, HIGHEST = -2.2, 3.2


class Curves(NamedTuple):
    """Value and slope of a quantizer at x, its bits in words, whether its values are random."""

    x: Tensor
    value: Tensor
    slope: Tensor
    bits: str
    random: bool


def curves(spec: Spec, points: int = POINTS) -> Curves:
    """The quantizer as a layer of one channel makes it, after one batch: x from -2 to 2.

    Methods that follow the epoch are at three quarters of the training, and those that give other
    values in training than in evaluation as they are in training. Those that mix elements are as
    they are before their first batch, when they do not.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return _curves(spec, points)


def _curves(spec: Spec, points: int) -> Curves:
    quantizer = quantizers.get(spec)
    assert quantizer is not None  # only the spec None gives None
    quantizer.bind(1, 0)
    quantizer.double()
    half = points // 2  # linspace would miss 0 by a rounding
    x = 2 * torch.arange(-half, half + 1, dtype=torch.float64).unsqueeze(0) / half
    with torch.no_grad():
        if quantizer.mixes:
            quantizer.eval()  # a batch in training would have it mixed
        quantizer(x)  # the first batch
        quantizer.set_progress(PROGRESS)
        in_training = quantizer.value(x)
        random = not quantizer.deterministic
        value = quantizer.eval()(x)
        bits = f"{quantizer.bits} bit" + ("s" if quantizer.bits > 1 else "")
        if quantizer.bits == 32:
            bits = "full precision"
        if quantizer.mixes:
            bits += ", before elements are mixed"
        elif not torch.equal(value, in_training):
            value, bits = in_training, f"{bits}, drawn in training"
        return Curves(x[0], value[0], quantizer.slope(x)[0], bits, random)


def in_letters(drawn: Curves) -> str:
    """A plot of ``curves``: # is the value, . the slope, x from -2 to 2."""
    grid = [[" "] * COLUMNS for _ in range(ROWS + 1)]
    step = (HIGHEST - LOWEST) / ROWS
    zero = round((HIGHEST - 0) / step)
    grid[zero] = ["-"] * COLUMNS
    for row in grid:
        row[COLUMNS // 2] = "|"
    places = torch.linspace(0, len(drawn.x) - 1, COLUMNS).round().long()
    for letter, heights in ((".", drawn.slope), ("#", drawn.value)):
        for column, height in enumerate(heights[places].tolist()):
            place = round((HIGHEST - height) / step)
            if 0 <= place <= ROWS:
                grid[place][column] = letter
    labels = {round((HIGHEST - height) / step): f"{height:2d}" for height in range(-2, 4)}
    lines = [f"{labels.get(i, '  ')} {''.join(row)}".rstrip() for i, row in enumerate(grid)]
    ruler = [f"{x:+d}" if x else "0" for x in range(-2, 3)]
    gap = (COLUMNS - 1) // 4
    lines.append("   " + "".join(mark.ljust(gap) for mark in ruler[:-1]) + ruler[-1])
    return "\n".join(lines)
