"""3 x 3 layers with float input and output (sign, pack, convolve, batch norm), channels_last."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from _bench import layers
from _bench.bench import Bench, maps
from _bench.figure import Figure

# must and moonshot over torch's eager float and over the best float
GOALS = {
    "64@56": ((15, 22), (14, 19)),
    "128@28": ((17, 22), (16, 19)),
    "256@14": ((19, 25), (17, 20)),
    "512@7": ((30, 40), (14, 18)),
}
INT8_GOALS = (4.5, 6.0)


def run(bench: Bench) -> Iterator[Figure]:
    for name, (channels, size) in maps(bench).items():
        model = layers.conv_norm(channels, channels)
        x = torch.randn(1, channels, size, size).contiguous(memory_format=torch.channels_last)
        twin = layers.float_layer(model, torch.channels_last)
        packed = layers.packed(model, x)
        done = bench.race(
            {
                "lowbit": lambda packed=packed, x=x: packed(x),
                "torch": lambda twin=twin, x=x: twin(x),
                "best float": layers.best_float(twin, x),
                "int8": layers.int8_conv(twin, x),
            }
        )
        over_torch, over_best = GOALS[name]
        for rival, goals in (
            ("torch", over_torch),
            ("best float", over_best),
            ("int8", INT8_GOALS),
        ):
            yield Figure(
                name,
                done.ratio(rival, "lowbit"),
                f"x {rival}",
                *map(bench.goal, goals),
                times=done.microseconds(),
            )
