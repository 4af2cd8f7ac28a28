"""What calling a packed layer costs where there is nothing to compute."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from _bench import layers, ops
from _bench.bench import Bench
from _bench.figure import Figure
from lowbit.kernels import Geometry


def run(bench: Bench) -> Iterator[Figure]:
    operands = ops.drawn(Geometry.of(64, 64, kernel=(1, 1)), 1, (1, 1))
    operands.check()
    x = torch.randn(1, 64, 1, 1)
    model = layers.conv_norm(64, 64)
    packed, twin = layers.packed(model, x), layers.float_layer(model, torch.contiguous_format)
    done = bench.race(
        {
            "op": operands.runner(ops.FLOAT, x=x),
            "module": lambda: packed(x),
            "torch conv + BN": lambda: twin(x),
            "torch.add": lambda: torch.add(x, x),
        }
    )
    for case, must, moonshot in (("op", 2.5, 1.6), ("module", None, None)):
        yield Figure(
            case,
            1e6 * done.median(case),
            "us",
            None if must is None else bench.goal(must),
            None if moonshot is None else bench.goal(moonshot),
            smaller=True,
            note=f"torch.add {1e6 * done.median('torch.add'):.1f}",
            times=done.microseconds(),
        )
