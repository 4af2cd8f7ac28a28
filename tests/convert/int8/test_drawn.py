"""Networks drawn at random from what CNNs are made of."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import lowbit
from lowbit.observers import disable_observer
from tests.convert.int8._int8 import images, sqnr, to_int8, used

ACTIVATIONS: list[Callable[[], nn.Module]] = [
    nn.ReLU,
    lambda: nn.ReLU(inplace=True),
    nn.ReLU6,
    nn.Hardswish,
    nn.LeakyReLU,
    nn.Identity,
]


class Drawn(nn.Module):
    """Blocks of convolution, batch norm and activation; sums, concatenations, pools between."""

    def __init__(self, seed: int, averages: bool) -> None:
        super().__init__()
        self.draw = torch.Generator().manual_seed(seed)
        self.blocks = nn.ModuleList()
        self.joins: list[str] = []
        width = 3
        halved: list[str] = []
        for _ in range(self.below(3) + 2):
            outputs = [4, 8, 12, 16][self.below(4)]
            join = ["none", "sum", "sum, relu", "cat", "pool", "shuffle"][self.below(6)]
            if averages and self.below(3) == 0:
                join = "average"
            if join in ("pool", "average") and len(halved := [*halved, join]) > 2:
                join = "none"  # reflected padding needs some places
            if join.startswith("sum"):
                width = self.block(width, outputs)
                self.joins.append("none")
                self.block(width, width)
            else:
                outputs = self.block(width, outputs)
                width = width + outputs if join == "cat" else outputs
            self.joins.append(join)
        self.averages = averages
        self.head = nn.Linear(width, 10, bias=self.below(2) == 0)

    def below(self, bound: int) -> int:
        return int(torch.randint(bound, (), generator=self.draw))

    def block(self, inputs: int, outputs: int) -> int:
        size = [1, 3, 3, 5][self.below(4)]
        dilation = 1 + self.below(2) if size == 3 else 1
        groups = [1, 1, 2, 4][self.below(4)]
        if inputs % groups or outputs % groups:
            groups = 1
        layer = nn.Conv2d(
            inputs,
            outputs,
            size,
            padding=dilation * (size // 2),
            dilation=dilation,
            groups=groups,
            bias=self.below(2) == 0,
            padding_mode=["zeros", "zeros", "reflect"][self.below(3)],
        )
        norm: nn.Module = nn.BatchNorm2d(outputs) if self.below(4) else nn.Identity()
        activation = ACTIVATIONS[self.below(len(ACTIVATIONS))]()
        order = (layer, norm, activation) if self.below(4) else (layer, activation, norm)
        self.blocks.append(nn.Sequential(*order))
        return outputs

    def forward(self, x: Tensor) -> Tensor:
        for block, join in zip(self.blocks, self.joins, strict=True):
            y = block(x)
            if join == "sum":
                y = y + x
            elif join == "sum, relu":
                y = F.relu(torch.add(x, y))
            elif join == "cat":
                y = torch.cat([x, y], 1)
            elif join == "pool":
                y = F.max_pool2d(y, 3, 2, 1)
            elif join == "average":
                y = F.avg_pool2d(y, 2, ceil_mode=True)
            elif join == "shuffle":
                y = F.channel_shuffle(y, 2).permute(0, 1, 3, 2)
            x = y
        return self.head(x.mean((2, 3)) if self.averages else x.amax((2, 3)))


@pytest.mark.parametrize("seed", range(40))
def test_a_drawn_network_is_near_its_float_form(seed: int) -> None:
    model, x = used(Drawn(seed, averages=True), seed), images(seed=seed)
    converted, report = to_int8(model, x)
    assert all(row.int8 for row in report), report
    assert not report.folding
    assert sqnr(model(x), converted(x)) > 30


@pytest.mark.parametrize("seed", range(40))
def test_a_drawn_network_is_its_fake_quantized_form(seed: int) -> None:
    """Float arithmetic on rounded numbers: every scale and every rounding is in its place."""
    x = images(seed=seed)
    model: Any = lowbit.prepare_qat(used(Drawn(seed, averages=False), seed))
    model(x)
    model.eval().apply(disable_observer)
    converted, _ = lowbit.convert(model, to="int8")
    assert sqnr(model(x), converted(x)) > 55
