"""Every pair of quantizers, in a network that is folded as far as it goes."""

import pytest
import torch
from torch import nn

import lowbit
from lowbit import quantizers
from lowbit.nn import QConv2d, QLinear
from tests.convert._networks import integers, shaken

NAMES = quantizers.names()
TWO_LEVEL = [name for name in NAMES if quantizers.get(name).two_level]


class Small(nn.Module):
    """conv - norm - conv - norm + shortcut - pool - linear - norm."""

    def __init__(self, inputs, weights) -> None:
        super().__init__()
        q = {"input_quantization": inputs, "weight_quantization": weights}
        self.conv1 = QConv2d(32, 64, 3, padding=1, **q)
        self.bn1 = nn.BatchNorm2d(64)
        self.conv2 = QConv2d(64, 64, 3, padding=1, bias=False, **q)
        self.bn2 = nn.BatchNorm2d(64)
        self.linear = QLinear(64, 48, **q)
        self.bn3 = nn.BatchNorm1d(48)

    def forward(self, x):
        x = self.bn1(self.conv1(x))
        x = self.bn2(self.conv2(x)) + x
        return self.bn3(self.linear(x.mean((2, 3))))


def compare(inputs, weights):
    """Convert and compare; returns the report."""
    torch.manual_seed(0)
    model = shaken(Small(inputs, weights), shape=(4, 32, 6, 6))
    converted, report = lowbit.convert(model, keep_slower=True)
    x = integers((6, 32, 6, 6), seed=1)
    with torch.no_grad():
        expected, found = model(x), converted(x)
    scale = float(expected.abs().max())
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5 * scale)
    return report


@pytest.mark.parametrize("weights", TWO_LEVEL)
@pytest.mark.parametrize("inputs", TWO_LEVEL)
def test_every_pair_of_two_levels_packs_and_gives_the_same_outputs(inputs, weights):
    report = compare(inputs, weights)
    for row in report:
        data_dependent = "depends on the data at hand" in row.why
        assert row.packed or data_dependent or "at random" in row.why, row.why


@pytest.mark.parametrize("name", sorted(set(NAMES) - set(TWO_LEVEL)))
@pytest.mark.parametrize("side", ["input", "weight"])
def test_every_other_quantizer_gives_the_same_outputs(name, side):
    """With signs on the other side; where a layer is left, the report says why."""
    inputs, weights = (name, "sign") if side == "input" else ("sign", name)
    for row in compare(inputs, weights):
        assert row.packed or row.why
