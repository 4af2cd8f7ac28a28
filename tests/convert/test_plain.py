"""Layers of lowbit without quantizers go to int8 as torch's layers do."""

import copy

import pytest
import torch
from torch import nn

import lowbit
from lowbit.convert.int8._plain import to_plain
from lowbit.models import LeNet
from lowbit.nn import QConv2d, QLinear


def batch(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def test_every_layer_of_a_float_lenet_becomes_int8():
    model = LeNet().eval()
    prepared = lowbit.prepare(model)
    prepared(batch(8, 1, 28, 28))
    _, report = lowbit.convert(prepared, to="int8")
    weights = {name for name, m in model.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)}
    assert {row.name for row in report if row.int8} >= weights
    assert type(model.features[4]) is QConv2d


def test_a_linear_layer_of_lowbit_becomes_dynamic_int8():
    made = lowbit.quantize_dynamic(nn.Sequential(QLinear(8, 4)))
    assert type(made[0]) is lowbit.nn.quantized.dynamic.Linear


@pytest.mark.parametrize(
    "layer", [QConv2d(3, 4, 3, padding=1), QLinear(3, 5), QConv2d(3, 4, 3, pad_value=1.0)]
)
def test_it_computes_what_it_did(layer):
    model = nn.Sequential(layer).eval()
    x = batch(2, 3, 6, 6) if isinstance(layer, nn.Conv2d) else batch(2, 3)
    plain = copy.deepcopy(model)
    to_plain(plain)
    assert type(plain[0]) in (nn.Conv2d, nn.Linear)
    assert torch.equal(plain(x), model(x))
    assert plain.state_dict().keys() == model.state_dict().keys()


@pytest.mark.parametrize(
    "layer",
    [
        QConv2d(3, 4, 3, padding=1, pad_value=1.0),
        QLinear(3, 5, weight_quantization="sign"),
        QLinear(3, 5, gradient_cancellation_threshold=1.0),
    ],
    ids=["pads with 1", "quantizes", "cancels gradients"],
)
def test_what_torchs_layer_would_do_otherwise_stays(layer):
    model = nn.Sequential(layer).train()
    to_plain(model)
    assert model[0] is layer
    assert type(layer) in (QConv2d, QLinear)
