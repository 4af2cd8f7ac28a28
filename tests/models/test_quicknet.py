"""QuickNet holds what larq's model zoo publishes of it."""

import pytest
import torch
from torch import nn

import lowbit
from lowbit.models import QuickNet
from lowbit.models.quicknet import Blur, ResidualBlock
from lowbit.nn import QConv2d

SIGN = {"input_quantization": "ste_sign", "weight_quantization": "sign"}
SMALL = {"num_classes": 5, "channels": (8, 16, 24), "blocks": (2, 1, 2)}


def small(**quantization):
    torch.manual_seed(0)
    return QuickNet(**SMALL, **quantization)


@pytest.mark.parametrize(
    ("sizes", "published"),
    [
        ({}, 13_234_088),
        ({"channels": (32, 64, 256, 512)}, 12_655_688),
        ({"blocks": (6, 8, 12, 6)}, 23_342_248),
    ],
    ids=["QuickNet", "QuickNetSmall", "QuickNetLarge"],
)
def test_it_has_the_published_number_of_parameters(sizes, published):
    with torch.device("meta"):
        model = QuickNet(num_classes=1000, **sizes, **SIGN)
    assert lowbit.summary(model, (3, 224, 224)).numbers == published


def test_it_computes_the_published_multiply_adds():
    model = QuickNet(num_classes=1000, **SIGN).to("meta")
    macs = lowbit.summary(model, (3, 224, 224)).macs
    assert round(macs.one_bit / 1e6, 1) == 1849.7
    assert round(macs.float / 1e6, 1) == 29.7
    assert macs.one_bit + macs.float == macs.total


def test_blocks_add_the_normalised_relu_of_a_convolution_padded_with_plus_one():
    block = ResidualBlock(6, {**SIGN, "pad_value": 1.0}).eval()
    nn.init.normal_(block.bn.running_mean)
    x = torch.randn(2, 6, 5, 5)
    signs = torch.where(x < 0, -1.0, 1.0)
    padded = nn.functional.pad(signs, (1, 1, 1, 1), value=1.0)
    weight = torch.where(block.conv.weight < 0, -1.0, 1.0)
    y = nn.functional.conv2d(padded, weight).relu()
    torch.testing.assert_close(block(x), x + block.bn(y))


@pytest.mark.parametrize(
    ("quantization", "expected"),
    [
        (SIGN, 1.0),
        ({}, 0.0),
        ({"input_quantization": {"name": "lsq", "bits": 2}}, 0.0),
        ({**SIGN, "pad_value": -1}, -1.0),
    ],
)
def test_it_pads_signs_with_plus_one_unless_told_otherwise(quantization, expected):
    model = small(**quantization)
    assert {m.pad_value for m in model.modules() if isinstance(m, QConv2d)} == {expected}


def test_blur_is_the_outer_square_of_one_two_one():
    x = torch.zeros(1, 2, 7, 7)
    x[0, 1, 2, 2] = 16
    y = Blur(2)(x)
    assert y.shape == (1, 2, 4, 4)
    assert not y[0, 0].any()
    assert y[0, 1, 1, 1] == 4
    assert y.sum() == 4  # the neighbours of row and column 2 fall between the values kept
    assert Blur(2)(torch.ones(1, 2, 7, 7))[0, 0, 1:3, 1:3].eq(1).all()


def test_training_reaches_every_parameter_and_not_the_blur():
    model = small(**SIGN)
    before = {name: buffer.clone() for name, buffer in model.named_buffers() if "kernel" in name}
    scores = model(torch.randn(4, 3, 32, 32))
    assert scores.shape == (4, 5)
    scores.square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name
    assert len(before) == 2
    assert all(torch.equal(model.get_buffer(name), buffer) for name, buffer in before.items())


def test_signs_see_both_values_in_every_block():
    model, shares = small(**SIGN).train(), []
    for module in model.modules():
        if isinstance(module, QConv2d):
            module.register_forward_pre_hook(
                lambda _, inputs: shares.append((inputs[0] < 0).float().mean().item())
            )
    model(torch.randn(16, 3, 32, 32))
    assert len(shares) == 5
    assert all(0 < share < 1 for share in shares)


def test_only_the_blocks_are_quantized():
    model = small(**SIGN)
    convolutions = {n for n, m in model.named_modules() if isinstance(m, nn.Conv2d)}
    quantized = {n for n, m in model.named_modules() if isinstance(m, QConv2d)}
    assert all(name.endswith(".conv") for name in quantized)
    assert len(quantized) == 5
    assert len(convolutions - quantized) == 3 + 2


def test_the_stems_norms_have_keras_defaults_and_the_middle_one_no_affine_part():
    model = small(**SIGN)
    stem = [m for m in model.stem if isinstance(m, nn.BatchNorm2d)]
    others = [m for m in model.stages.modules() if isinstance(m, nn.BatchNorm2d)]
    assert [m.affine for m in stem] == [True, False, True]
    assert {(m.eps, m.momentum) for m in stem} == {(1e-3, 0.01)}
    assert {(m.eps, m.momentum, m.affine) for m in others} == {(1e-5, 0.1, True)}


def test_it_traces_with_the_layers_as_leaves():
    model = small(**SIGN).eval()

    class Tracer(torch.fx.Tracer):
        def is_leaf_module(self, module, name):
            return module.__module__.startswith(("torch.nn", "lowbit.nn"))

    traced = torch.fx.GraphModule(model, Tracer().trace(model))
    x = torch.randn(2, 3, 40, 40)
    assert torch.equal(traced(x), model(x))


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"channels": (8, 16)}, r"channels=\(8, 16\) and blocks=\(4, 4, 4, 4\)"),
        ({"channels": (), "blocks": ()}, "every stage"),
        ({"channels": (6,), "blocks": (1,)}, "multiple of 4; got 6"),
    ],
)
def test_a_wrong_size_is_named(sizes, message):
    with pytest.raises(ValueError, match=message):
        QuickNet(**sizes)
