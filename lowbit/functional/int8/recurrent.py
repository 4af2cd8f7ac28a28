"""Recurrent layers whose matrices are int8: the input's product once, the state's at each step.

The gates and the states are float32. ``project(x, matrix)`` multiplies: ``dynamic.linear`` here,
which quantizes the input of a layer once for the whole sequence, and the state anew at each step.
A sequence is (steps, batch, features), or with ``batch_sizes`` the rows of a ``PackedSequence``
(rows, features), whose step t has the first ``batch_sizes[t]`` sequences.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from lowbit.functional.int8.dynamic import Matrix, Project

Step = Callable[[Tensor, Tensor, tuple[Tensor, ...]], tuple[Tensor, ...]]


def lstm_gates(x: Tensor, h: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """(h', c') from the products (batch, 4 hidden) of input and state, and (h, c).

    i, f, g, o = gates of x + h;  c' = sigmoid(f) c + sigmoid(i) tanh(g);  h' = sigmoid(o) tanh(c')
    """
    i, f, g, o = (x + h).chunk(4, -1)
    c = f.sigmoid() * state[1] + i.sigmoid() * g.tanh()
    return o.sigmoid() * c.tanh(), c


def gru_gates(x: Tensor, h: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """(h',) from the products (batch, 3 hidden) of input and state, and (h,).

    r = sigmoid(xr + hr);  z = sigmoid(xz + hz);  n = tanh(xn + r hn);  h' = (h - n) z + n
    """
    xr, xz, xn = x.chunk(3, -1)
    hr, hz, hn = h.chunk(3, -1)
    n = (xn + (xr + hr).sigmoid() * hn).tanh()
    return ((state[0] - n) * (xz + hz).sigmoid() + n,)


def tanh_gate(x: Tensor, h: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """(h',), the hyperbolic tangent of the sum of both products (batch, hidden)."""
    return ((x + h).tanh(),)


def relu_gate(x: Tensor, h: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """(h',), the positive part of the sum of both products (batch, hidden)."""
    return ((x + h).relu(),)


GATES: dict[str, Step] = {
    "lstm": lstm_gates,
    "gru": gru_gates,
    "tanh": tanh_gate,
    "relu": relu_gate,
}


def cell(
    gates: str, x: Tensor, state: tuple[Tensor, ...], ih: Matrix, hh: Matrix, project: Project
) -> tuple[Tensor, ...]:
    """One step: the states (batch, hidden) after x (batch, features). ``gates`` names a formula."""
    return GATES[gates](project(x, ih), project(state[0], hh), state)


def layer(
    gates: str,
    x: Tensor,
    batch_sizes: Tensor | None,
    state: tuple[Tensor, ...],
    ih: Matrix,
    hh: Matrix,
    reverse: bool,
    project: Project,
) -> tuple[Tensor, ...]:
    """One layer in one direction: (outputs in the layout of x, the states at the end).

    ``state`` and what comes back of it are (batch, hidden), h first. ``reverse`` goes from the
    last step to the first; in a packed sequence each one begins at its own last step.
    """
    step = GATES[gates]
    projected = project(x, ih)
    if batch_sizes is None:
        rows = list(projected.unbind(0))
    else:
        rows = list(projected.split(batch_sizes.tolist()))
    outputs = []
    for row in reversed(rows) if reverse else rows:
        n = len(row)
        active = tuple(s[:n] for s in state)
        after = step(row, project(active[0], hh), active)
        outputs.append(after[0])
        if n < len(state[0]):  # the shorter sequences keep theirs
            after = tuple(torch.cat([new, old[n:]]) for new, old in zip(after, state, strict=True))
        state = after
    if reverse:
        outputs.reverse()
    y = torch.stack(outputs) if batch_sizes is None else torch.cat(outputs)
    return y, *state
