"""Real numbers to whole ones, as thresholds say."""

from __future__ import annotations

from itertools import product
from typing import Any

import torch
from torch import Tensor

from lowbit.export._recorder import Recorder

# So many comparisons cost no more than a division, a rounding and a limit.
MOST_COMPARED = 3
# How far from the step that thresholds suggest the one that made them is sought, in ulps.
REACH = 4


def levels(g: Recorder, x: Any, thresholds: Tensor | None, low: int, rise: int) -> str:
    """low + rise times the number of thresholds that x is not below.

    ``thresholds`` float32 (T,) or (T, channels), ascending; None is 0. Equal to comparisons on
    every float: a rounding takes their place where, tried around every threshold, it is so.
    """
    thresholds = torch.zeros(1) if thresholds is None else thresholds
    used = [t for t in thresholds if not bool((t == -torch.inf).all())]
    low += rise * (len(thresholds) - len(used))
    if len(used) > MOST_COMPARED:
        rounded = _rounded(g, x, torch.stack(used), low, rise)
        if rounded is not None:
            return rounded
    ends = g.number(float(low)), g.number(float(low + rise))
    u = ""
    for t in used:
        below = g.node("Less", x, g.constant_of(_spread(t, x.ndim - 2), "threshold"))
        part = g.node("Where", below, *ends)
        u = g.node("Add", u, part) if u else part
        ends = g.number(0.0), g.number(float(rise))
    return u


def _spread(t: Tensor, axes: int) -> Tensor:
    return t if t.ndim == 0 else t.view(-1, *[1] * axes)


def _rounded(g: Recorder, x: Any, t: Tensor, low: int, rise: int) -> str | None:
    """clamp(round(x / step)), or with a factor; None where neither has these thresholds."""
    found = step_of(t) if t.ndim == 1 else None
    if found is None:
        return None
    op, number, first = found
    y = g.node("Round", g.node(op, x, g.number(number)))
    y = g.node("Clip", y, g.number(float(first)), g.number(float(first + len(t))))
    y = y if rise == 1 else g.node("Mul", y, g.number(float(rise)))
    shift = low - rise * first
    return str(g.node("Add", y, g.number(float(shift))) if shift else y)


def step_of(t: Tensor) -> tuple[str, float, int] | None:
    """(operator, number, first) with t_j the least x where round(x op number) > first + j.

    Halves go to even, so that the first of these is the least float above 0.5:

    >>> step_of(torch.tensor([0.50000006, 1.5, 2.5000002, 3.5]))
    ('Div', 1.0, 0)
    >>> step_of(torch.tensor([0.5, 1.5, 2.5, 3.5])) is None
    True
    """
    count = len(t)
    rough = float(t[-1].double() - t[0].double()) / (count - 1)
    if not rough > 0:
        return None
    first = round(float(t[0]) / rough - 0.5)
    before = torch.nextafter(t, torch.tensor(-torch.inf))
    expected = first + torch.arange(count)
    for op, ulps in product(("Div", "Mul"), sorted(range(-REACH, REACH + 1), key=abs)):
        number = torch.tensor(rough if op == "Div" else 1 / rough, dtype=torch.float32)
        number = (number.view(torch.int32) + ulps).view(torch.float32)
        apply = torch.div if op == "Div" else torch.mul
        under, over = (torch.round(apply(side, number)) for side in (before, t))
        if torch.equal(under, expected.float()) and torch.equal(over, expected + 1.0):
            return op, float(number), first
    return None
