"""The same 3 x 3 convolutions beside OpenVINO's BinaryConvolution.

What one of OpenVINO's costs is an eighth of the difference between ten and two of them in a
chain, so that the entry into the network, which its users pay once, does not count.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch

from _bench import ops
from _bench.bench import Bench, maps
from _bench.figure import Figure
from _bench.openvino_peer import NOT_INSTALLED, Chain, openvino

FEW, MANY = 2, 10
FORMS = {  # whether OpenVINO's is a residual block; goals
    "bits to bits": (False, 1.0, 1.25),
    "float block": (True, 1.3, 2.0),
}


def run(bench: Bench) -> Iterator[Figure]:
    for name, (channels, size) in maps(bench).items():
        for form, (residual, must, moonshot) in FORMS.items():
            case, goals = f"{name}, {form}", (bench.goal(must), bench.goal(moonshot))
            if openvino() is None:
                yield Figure(case, None, "x OpenVINO", *goals, note=NOT_INSTALLED)
                continue
            operands = ops.convolution(channels, size)
            operands.check()
            few, many = (Chain(channels, size, n, residual, bench.threads) for n in (FEW, MANY))
            for chain in (few, many):
                chain.check()
            ours = operands.runner(ops.BITS)
            if residual:
                x = torch.randn(1, channels, size, size)
                x = x.contiguous(memory_format=torch.channels_last)
                ours = operands.runner(ops.FLOAT, residual=x, x=x)
            runners = {"lowbit": ours, "few": few.runner(), "many": many.runner()}
            done = bench.race(runners)
            theirs = done.each(lambda t: (t["many"] - t["few"]) / (MANY - FEW))
            ratio = done.each(lambda t: (t["many"] - t["few"]) / (MANY - FEW) / t["lowbit"])
            note = f"{1e6 * theirs:.1f} us"
            yield Figure(case, ratio, "x OpenVINO", *goals, note=note, times=done.microseconds())
