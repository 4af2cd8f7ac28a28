"""Layers with quantizers of several levels, converted to int8."""

import pytest
import torch
from torch import nn

import lowbit
from lowbit.models import VGGSmall
from lowbit.nn import QConv1d, QConv2d, QConv3d, QLinear

INPUTS = [
    {"name": "dorefa_input", "bits": 4},
    {"name": "dorefa_input", "bits": 8},
    {"name": "lsq", "bits": 4},
    {"name": "pact", "bits": 4},
]
WEIGHTS = [
    {"name": "dorefa_weight", "bits": 4},
    {"name": "lsq", "bits": 8},
    {"name": "int_k", "bits": 5},
]
LAYERS = {
    "linear": (lambda **q: QLinear(70, 30, **q), (9, 70)),
    "1d": (lambda **q: QConv1d(16, 24, 3, padding=1, **q), (2, 16, 15)),
    "2d": (lambda **q: QConv2d(16, 32, 3, stride=2, padding=1, bias=False, **q), (2, 16, 9, 9)),
    "grouped": (lambda **q: QConv2d(16, 32, 3, groups=4, **q), (2, 16, 9, 9)),
    "3d": (lambda **q: QConv3d(8, 8, 2, **q), (2, 8, 4, 4, 4)),
}


def trained(make, shape, x_quantizer, w_quantizer):
    torch.manual_seed(0)
    layer = make(input_quantization=x_quantizer, weight_quantization=w_quantizer)
    layer(torch.randn(shape))  # quantizers that start from their first batch
    return layer.eval()


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("x_quantizer", INPUTS, ids=lambda spec: f"{spec['name']}{spec['bits']}")
@pytest.mark.parametrize("w_quantizer", WEIGHTS, ids=lambda spec: f"{spec['name']}{spec['bits']}")
def test_an_int8_layer_gives_the_numbers_of_the_trained_one(kind, x_quantizer, w_quantizer):
    make, shape = LAYERS[kind]
    layer = trained(make, shape, x_quantizer, w_quantizer)
    x = torch.randn(shape)
    converted, report = lowbit.convert(nn.Sequential(layer), to="int8")
    assert [row.int8 for row in report] == [True], report[0].why
    torch.testing.assert_close(converted(x), layer(x), rtol=1e-5, atol=2e-5)
    assert report[0].bytes_after < report[0].bytes_before


def test_binary_layers_are_packed_in_the_same_call():
    model = VGGSmall(width=32, input_quantization="sign", weight_quantization="sign").eval()
    _, report = lowbit.convert(model, to="int8")
    assert sum(row.packed for row in report) == 5
    assert not any(row.int8 for row in report)


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"input_quantization": None}, "its input is not quantized"),
        ({"weight_quantization": None}, "its weight is not quantized"),
        ({"pad_value": 1, "padding": 1}, "it pads with 1, and int8 with 0"),
        ({"weight_quantization": {"name": "apot", "bits": 8}}, "steps of one size"),
    ],
)
def test_what_stays_says_why(options, why):
    quantizers = {
        "input_quantization": {"name": "dorefa_input", "bits": 8},
        "weight_quantization": {"name": "dorefa_weight", "bits": 8},
    }
    layer = QConv2d(16, 16, 3, **{**quantizers, **options})
    fine = QLinear(16, 16, **quantizers)
    model = nn.ModuleDict({"layer": layer, "fine": fine}).eval()
    _, report = lowbit.convert(model, to="int8")
    row = next(row for row in report if row.name == "layer")
    assert not row.int8
    assert why in row.why
