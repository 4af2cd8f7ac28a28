"""Layers of quantization-aware training: op(x, fake_quant(weight)), there and back."""

import copy
import pickle

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import parametrizations, parametrize

from lowbit.nn import qat
from lowbit.qconfig import (
    QConfig,
    default_embedding_qat_qconfig,
    default_embedding_qat_qconfig_4bit,
    get_default_qat_qconfig,
)

INT4 = QConfig(nn.Identity, {"name": "int_k", "bits": 4})
CONFIGS = {"x86": get_default_qat_qconfig(), "qnnpack": get_default_qat_qconfig("qnnpack", 0)}
CONFIGS["int4"] = INT4
OPTIONS = [
    {},
    {"stride": 2, "padding": 1, "bias": False},
    {"groups": 2, "dilation": 2, "padding": 2, "padding_mode": "circular"},
    {"padding": "same"},
]
CONVS = [(kind, options) for kind in ("Conv1d", "Conv2d", "Conv3d") for options in OPTIONS]


def conv(kind, **options):
    return getattr(nn, kind)(4, 6, 3, **options)


def images(kind):
    return torch.randn(2, 4, *[7] * int(kind[-2]))


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize(("kind", "options"), CONVS, ids=str)
def test_a_convolution_rounds_its_weight(kind, options, config):
    source = conv(kind, **options)
    source.qconfig = CONFIGS[config]
    layer = getattr(qat, kind).from_float(source)
    assert layer.weight is source.weight
    assert layer.bias is source.bias
    x = images(kind)
    y = layer(x)
    rounded = copy.deepcopy(source)
    rounded.weight = nn.Parameter(layer.weight_fake_quant(layer.weight).detach())
    assert not torch.equal(rounded.weight, source.weight)
    assert torch.equal(y, rounded(x))
    assert torch.equal(layer.to_float()(x), source(x))


@pytest.mark.parametrize("kind", ["Conv1d", "Conv2d", "Conv3d"])
def test_a_convolution_with_relu(kind):
    source = nn.Sequential(conv(kind), nn.ReLU())
    source.qconfig = CONFIGS["x86"]
    layer = getattr(qat, kind.replace("Conv", "ConvReLU")).from_float(source.eval())
    x = images(kind)
    assert torch.equal(layer(x), F.relu(getattr(qat, kind).forward(layer, x)))
    back = layer.to_float()
    assert [type(part) for part in back] == [type(source[0]), nn.ReLU]
    assert torch.equal(back(x), source(x))
    assert not back.training


@pytest.mark.parametrize("config", CONFIGS)
def test_a_linear_layer_with_relu(config):
    source = nn.Sequential(nn.Linear(9, 5), nn.ReLU())
    source[0].qconfig = CONFIGS[config]
    layer = qat.LinearReLU.from_float(source)
    x = torch.randn(2, 3, 9)
    weight = layer.weight_fake_quant(layer.weight)
    assert torch.equal(layer(x), F.relu(F.linear(x, weight, layer.bias)))
    assert torch.equal(layer.to_float()(x), source(x))


def test_the_gradient_passes_where_codes_are_in_range():
    layer = qat.Linear(50, 3, qconfig=CONFIGS["qnnpack"])
    layer(torch.randn(4, 50))
    layer.weight_fake_quant.disable_observer()
    with torch.no_grad():
        layer.weight[:, :10] *= 5
    layer(torch.ones(1, 50)).sum().backward()
    reach = 127.5 * layer.weight_fake_quant.scale
    inside = layer.weight.detach().abs() <= reach
    assert 0 < inside.sum() < inside.numel()
    assert torch.equal(layer.weight.grad, inside.float())


def test_copies_of_to_float_are_their_own():
    layer = qat.Linear(4, 3, qconfig=INT4)
    back = layer.to_float()
    with torch.no_grad():
        layer.weight.zero_()
        layer.bias.zero_()
    assert back.weight.abs().sum() > 0
    assert back.bias.abs().sum() > 0


@pytest.mark.parametrize("kind", [nn.Linear, nn.Conv2d])
def test_parametrizations_are_carried_over(kind):
    source = nn.Linear(6, 5) if kind is nn.Linear else nn.Conv2d(6, 5, 3)
    parametrizations.weight_norm(source)
    source.qconfig = CONFIGS["x86"]
    layer = getattr(qat, kind.__name__).from_float(source)
    assert parametrize.is_parametrized(layer, "weight")
    assert torch.equal(layer.weight, source.weight)
    layer(torch.randn(2, 6) if kind is nn.Linear else torch.randn(2, 6, 4, 4)).sum().backward()
    assert layer.parametrizations.weight.original0.grad is not None


BITS = {8: default_embedding_qat_qconfig, 4: default_embedding_qat_qconfig_4bit}


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
def test_a_bag_rounds_every_row_on_its_own(mode, bits):
    source = nn.EmbeddingBag(12, 32, mode=mode, include_last_offset=True)
    source.qconfig = BITS[bits]
    layer = qat.EmbeddingBag.from_float(source)
    assert layer.weight is source.weight
    indices, offsets = torch.randint(12, (20,)), torch.tensor([0, 3, 11, 20])
    y = layer(indices, offsets)
    table = layer.weight_fake_quant(layer.weight)
    assert all(len(row.unique()) <= 2**bits for row in table)
    assert not torch.equal(table, layer.weight)
    assert torch.equal(
        y, F.embedding_bag(indices, table, offsets, mode=mode, include_last_offset=True)
    )
    assert torch.equal(layer.to_float()(indices, offsets), source(indices, offsets))


def test_an_embedding_looks_up_rounded_rows():
    source = nn.Embedding(10, 16, padding_idx=3, scale_grad_by_freq=True)
    source.qconfig = default_embedding_qat_qconfig_4bit
    layer = qat.Embedding.from_float(source)
    indices = torch.randint(10, (4, 5))
    assert torch.equal(layer(indices), layer.weight_fake_quant(layer.weight)[indices])
    layer(torch.tensor([3, 4])).sum().backward()
    assert layer.weight.grad[3].abs().sum() == 0
    assert layer.weight.grad[4].abs().sum() > 0
    back = layer.to_float()
    assert (back.padding_idx, back.scale_grad_by_freq) == (3, True)
    assert torch.equal(back.weight, source.weight)


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: qat.Conv2d(3, 4, 3), ValueError, "needs a qconfig"),
        (lambda: qat.Conv2d.from_float(nn.Linear(2, 2)), TypeError, "takes Conv2d; got Linear"),
        (lambda: qat.Conv2d.from_float(nn.Conv2d(2, 2, 1)), ValueError, "has no qconfig"),
        (lambda: qat.LinearReLU.from_float(nn.Linear(2, 2)), TypeError, "sequence of Linear, ReLU"),
        (lambda: qat.Embedding(3, 4), ValueError, "needs a qconfig"),
        (lambda: qat.Embedding(3, 4, qconfig=CONFIGS["x86"]), ValueError, "default_embedding_qat"),
        (lambda: qat.EmbeddingBag(3, 4, qconfig=CONFIGS["x86"]), ValueError, "float_qparams"),
    ],
)
def test_what_cannot_be_is_refused_with_words(make, error, words):
    with pytest.raises(error, match=words):
        make()


@pytest.mark.parametrize("config", CONFIGS)
def test_a_model_of_them_is_an_ordinary_module(config):
    chosen = CONFIGS[config]
    model = nn.Sequential(
        qat.ConvReLU2d(3, 6, 3, qconfig=chosen), nn.Flatten(), qat.Linear(96, 4, qconfig=chosen)
    )
    x = torch.randn(2, 3, 6, 6)
    compiled = torch.compile(copy.deepcopy(model), fullgraph=True, backend="aot_eager")
    assert torch.equal(model(x), compiled(x))
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(other(x), model(x))
    batch = torch.export.Dim("batch")
    for fake in (model[0].weight_fake_quant, model[2].weight_fake_quant):
        fake.disable_observer()
    program = torch.export.export(model.eval(), (x,), dynamic_shapes=({0: batch},))
    y = torch.randn(5, 3, 6, 6)
    assert torch.equal(program.module()(y), model(y))
