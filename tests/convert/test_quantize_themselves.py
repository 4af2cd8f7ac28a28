"""Layers behind a QActivation: they take its quantizer, and no value changes."""

import copy

import pytest
import torch
from torch import nn

import lowbit
from lowbit.convert import Report
from lowbit.models import CNV, FinnMLP, ResNet
from lowbit.nn import QActivation, QConv2d, QLinear
from tests.convert._networks import shaken

TERNARY = {"name": "ste_tern", "threshold": 0.5}
FEW = [TERNARY, {"name": "dorefa_input", "bits": 2}, "ste_heaviside", "sign", "swish_sign"]


def same(model: nn.Module, *shape: int) -> Report:
    """The report of a conversion, whose outputs are equal but for the rounding of float sums."""
    packed, report = lowbit.convert(model, keep_slower=True)
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(packed(x), model.eval()(x), rtol=1e-5, atol=1e-5)
    return report


class Rows(nn.Module):
    def __init__(self, first, second=None, *, read_twice=False):
        super().__init__()
        self.first = QActivation(first)
        self.drop = nn.Dropout(0.5)
        self.second = None if second is None else QActivation(second)
        self.layer = QLinear(192, 192, bias=False, weight_quantization="sign")
        self.norm = nn.BatchNorm1d(192)
        self.read_twice = read_twice

    def forward(self, x):
        q = self.first(x)
        y = self.norm(self.layer(self.drop(q)))
        if self.second is not None:
            y = y + self.layer(self.second(x))
        return y + q if self.read_twice else y


class Beside(nn.Module):
    """What a layer reads is added to what it gives."""

    def __init__(self, parts):
        super().__init__()
        self.quantizer, self.drop, self.layer = parts

    def forward(self, x):
        q = self.quantizer(x)
        return q + self.layer(self.drop(q))


@pytest.mark.parametrize("quantizer", FEW, ids=str)
@pytest.mark.parametrize("read_twice", [False, True])
def test_dropout_behind_a_quantizer_is_no_obstacle(quantizer, read_twice):
    report = same(shaken(Rows(quantizer, read_twice=read_twice)), 5, 192)
    assert [row.packed for row in report] == [True]


@pytest.mark.parametrize("threshold", [None, 1.0])
@pytest.mark.parametrize("read_twice", [False, True])
@pytest.mark.parametrize("keep_slower", [False, True])
@pytest.mark.parametrize("width", [4, 192])  # 4: too small to be worth packing
@pytest.mark.parametrize(
    "quantizer",
    ["rsign", {"name": "int_k", "bits": 4}, {"name": "lsq", "bits": 3}, "adabin_input", "sign"],
    ids=str,
)
def test_no_value_is_quantized_twice(quantizer, width, keep_slower, read_twice, threshold):
    """Of these a second time would give other values: rsign adds its shift before the sign."""
    model = nn.Sequential(
        QActivation(quantizer, threshold, channels=width),
        nn.Dropout(0.5),
        QLinear(width, width, weight_quantization="sign"),
    )
    model(torch.randn(16, width))  # first ranges
    with torch.no_grad():
        for parameter in model[0].parameters():
            parameter.add_(torch.randn(parameter.shape).abs())
    if read_twice:
        model = Beside(model)
    before = copy.deepcopy(model).eval()
    packed, _ = lowbit.convert(model, keep_slower=keep_slower)
    x = torch.randn(64, width)
    with torch.no_grad():
        torch.testing.assert_close(packed(x), before(x), rtol=1e-5, atol=1e-5)


def test_a_layer_behind_two_quantizers_keeps_both():
    assert [row.packed for row in same(shaken(Rows(TERNARY, "dorefa_input")), 5, 192)] == [False]


def test_values_in_between_that_are_no_signs_stay_in_front():
    model = nn.Sequential(
        QActivation({"name": "dorefa_input", "bits": 2}),
        nn.MaxPool2d(2),
        QConv2d(64, 64, 3, padding=1, bias=False, weight_quantization="sign"),
        nn.BatchNorm2d(64),
    )
    assert [row.packed for row in same(shaken(model), 2, 64, 8, 8)] == [False]


def test_a_hook_on_the_quantizer_keeps_it():
    model = shaken(Rows(TERNARY))
    model.first.register_forward_hook(lambda *_: None)
    assert [row.packed for row in same(model, 5, 192)] == [False]


@pytest.mark.parametrize("quantizer", [TERNARY, "sign"], ids=str)
def test_finn_networks_pack(quantizer):
    q = {"input_quantization": quantizer, "weight_quantization": quantizer}
    assert all(row.packed for row in same(shaken(FinnMLP(**q)), 3, 1, 28, 28))
    of_image, *others = same(shaken(CNV(**q)), 1, 3, 32, 32)
    assert not of_image.packed
    assert all(row.packed for row in others)


@pytest.mark.parametrize("downsample", ["pad", "pool_pad"])
@pytest.mark.parametrize("size", [(32, 32), (17, 10)])
def test_shortcuts_of_zero_channels_fold(downsample, size):
    model = ResNet(
        depth=20, stem="cifar", order="conv_bn", shortcut="conv", downsample=downsample,
        input_quantization="sign", weight_quantization="sign",
    )  # fmt: skip
    report = same(shaken(model), 2, 3, *size)
    assert all(row.folded[-1:] == ["add"] for row in report)
