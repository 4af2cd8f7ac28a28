"""Layers with a batch norm that will be folded."""

import copy

import pytest
import torch
from torch import nn

from lowbit.nn import qat
from lowbit.nn.qat import freeze_bn_stats, update_bn_stats
from lowbit.observers import disable_fake_quant
from lowbit.qconfig import get_default_qat_qconfig

KINDS = ["ConvBn1d", "ConvBn2d", "ConvBn3d", "ConvBnReLU1d", "ConvBnReLU2d", "LinearBn1d"]


def pair(kind, bias=True):
    """The float sequence of a kind, with statistics and parameters of some use; an input."""
    d = int(kind[-2])
    norm = getattr(nn, f"BatchNorm{d}d")(6)
    for tensor in (norm.weight, norm.running_var):
        nn.init.uniform_(tensor, 0.5, 2)
    for tensor in (norm.bias, norm.running_mean):
        nn.init.normal_(tensor)
    norm.weight.data[2] *= -1
    if kind == "LinearBn1d":
        first, x = nn.Linear(4, 6, bias), torch.randn(8, 4)
    else:
        first = getattr(nn, f"Conv{d}d")(4, 6, 3, padding=1, bias=bias)
        x = torch.randn(3, 4, *[5] * d)
    parts = [first, norm, *([nn.ReLU()] if "ReLU" in kind else [])]
    model = nn.Sequential(*parts)
    model.qconfig = get_default_qat_qconfig("onednn")
    return model, x


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_without_rounding_it_is_the_float_pair(kind, bias):
    source, x = pair(kind, bias)
    layer = getattr(qat, kind).from_float(copy.deepcopy(source))
    layer.apply(disable_fake_quant)
    for mode in (True, True, False):
        source.train(mode)
        layer.train(mode)
        a, b = (x.clone().requires_grad_() for _ in range(2))
        y, z = layer(a), source(b)
        torch.testing.assert_close(y, z, rtol=1e-4, atol=1e-4)
        gradient = torch.randn_like(y)
        y.backward(gradient)
        z.backward(gradient)
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-3, atol=1e-4)
        for name in ("running_mean", "running_var", "num_batches_tracked"):
            torch.testing.assert_close(getattr(layer.bn, name), getattr(source[1], name))
    torch.testing.assert_close(layer.weight.grad, source[0].weight.grad, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(layer.bn.weight.grad, source[1].weight.grad, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_in_eval_mode_it_is_the_folded_layer_with_a_rounded_weight(kind):
    source, x = pair(kind)
    layer = getattr(qat, kind).from_float(source.eval())
    y = layer(x)
    folded = layer.to_float()
    exact = folded(x)
    first = folded[0] if "ReLU" in kind else folded
    weight, bias = layer.folded()
    assert torch.equal(first.bias, bias)
    first.weight = nn.Parameter(layer.weight_fake_quant(weight.detach()))
    torch.testing.assert_close(y, folded(x), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(y, exact, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_to_float_folds(kind, bias):
    source, x = pair(kind, bias)
    layer = getattr(qat, kind).from_float(source.eval())
    torch.testing.assert_close(layer.to_float()(x), source(x), rtol=1e-4, atol=1e-4)


def test_parameters_and_statistics_are_shared():
    source, x = pair("ConvBn2d")
    layer = qat.ConvBn2d.from_float(source)
    layer(x)
    assert layer.weight is source[0].weight
    assert layer.bn.weight is source[1].weight
    assert layer.bn.running_mean is source[1].running_mean


def test_frozen_statistics_stay_in_training():
    source, x = pair("ConvBnReLU2d")
    model = nn.Sequential(qat.ConvBnReLU2d.from_float(source))
    before = model[0].bn.running_mean.clone()
    model.apply(freeze_bn_stats).train()
    y = model(x)
    assert torch.equal(model[0].bn.running_mean, before)
    assert torch.equal(model.eval()(x), y)
    model.apply(update_bn_stats).train()
    model(x)
    assert not torch.equal(model[0].bn.running_mean, before)
    assert not qat.ConvBn2d(4, 6, 3, freeze_bn=True, qconfig=source.qconfig).bn.training


def test_a_channel_with_factor_zero_has_the_norms_bias():
    source, x = pair("ConvBn2d")
    source[1].weight.data[4] = 0
    layer = qat.ConvBn2d.from_float(source)
    y = layer(x)
    assert y.isfinite().all()
    torch.testing.assert_close(y[:, 4], source[1].bias[4].expand_as(y[:, 4]))
    y.square().sum().backward()
    assert layer.bn.weight.grad.isfinite().all()
    assert layer.bn.weight.grad[4] != 0


@pytest.mark.parametrize("option", ["affine", "track_running_stats"])
def test_a_norm_that_cannot_be_folded_is_told(option):
    source, _ = pair("ConvBn2d")
    source[1] = nn.BatchNorm2d(6, **{option: False})
    with pytest.raises(ValueError, match="affine=True and track_running_stats=True"):
        qat.ConvBn2d.from_float(source)


def test_it_trains_in_one_graph():
    source, x = pair("ConvBnReLU2d")
    layer = qat.ConvBnReLU2d.from_float(source)
    other = copy.deepcopy(layer)
    compiled = torch.compile(other, fullgraph=True, backend="aot_eager")
    for _ in range(2):
        torch.testing.assert_close(layer(x), compiled(x))
    torch.testing.assert_close(layer.bn.running_var, other.bn.running_var)
    assert torch.equal(layer.weight_fake_quant.scale, other.weight_fake_quant.scale)
