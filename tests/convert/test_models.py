"""Every model of the library, converted: the same outputs, and what is folded."""

import copy

import pytest
import torch
from torch import nn

import lowbit
from lowbit.models import MLP, LeNet, QuickNet, ResNet18, VGGSmall
from lowbit.nn.packed import PackedLayer, PackedMaxPool2d
from tests.convert._networks import SIGN, integers, shaken

IMAGE = (3, 32, 32)
MODELS = {
    "mlp": (lambda **q: MLP(1, 10, 8, (96, 128, 96), **q), (1, 8, 8)),
    "mlp_ends": (
        lambda **q: MLP(1, 10, 8, (96, 64), binary_ends=True, dropout=0.1, **q),
        (1, 8, 8),
    ),
    "mlp_prelu": (lambda **q: MLP(1, 10, 8, (96, 64, 80), activation="prelu", **q), (1, 8, 8)),
    "lenet": (lambda **q: LeNet(1, 10, 28, (32, 50), 64, **q), (1, 28, 28)),
    "lenet_64": (
        lambda **q: LeNet(1, 10, 8, (32, 64), 96, kernel_size=3, padding=1, **q),
        (1, 8, 8),
    ),
    "lenet_hardtanh": (
        lambda **q: LeNet(1, 10, 28, (20, 64), 64, activation="hardtanh", **q),
        (1, 28, 28),
    ),
    "lenet_bn_sign": (
        lambda **q: LeNet(1, 10, 28, (20, 50), 64, order="bn_sign", **q),
        (1, 28, 28),
    ),
    "vgg": (lambda **q: VGGSmall(width=32, **q), IMAGE),
    "vgg_hardtanh": (lambda **q: VGGSmall(width=16, activation="hardtanh", **q), IMAGE),
    "vgg_rprelu": (lambda **q: VGGSmall(width=16, activation="rprelu", **q), IMAGE),
    "vgg_maxout": (lambda **q: VGGSmall(width=16, activation="maxout", **q), IMAGE),
    "quicknet": (lambda **q: QuickNet(channels=(32, 64), blocks=(2, 2), **q), (3, 64, 64)),
    "resnet18": (lambda **q: ResNet18(width=16, **q), IMAGE),
    "resnet18_block": (lambda **q: ResNet18(width=16, shortcut="block", **q), IMAGE),
    "resnet18_pool": (lambda **q: ResNet18(width=16, downsample="pool_float", **q), IMAGE),
    "resnet18_odd": (lambda **q: ResNet18(width=16, downsample="pool_float", **q), (3, 27, 35)),
    "resnet18_quantized": (lambda **q: ResNet18(width=16, downsample="quantized", **q), IMAGE),
    "resnet18_imagenet": (
        lambda **q: ResNet18(width=16, stem="imagenet", pad_value=0, **q),
        (3, 64, 64),
    ),
    "resnet18_rprelu": (lambda **q: ResNet18(width=16, activation="rprelu", **q), IMAGE),
    "resnet18_prelu": (
        lambda **q: ResNet18(width=16, activation="prelu", shortcut="block", pad_value=1, **q),
        IMAGE,
    ),
    "resnet18_hardtanh": (lambda **q: ResNet18(width=16, activation="hardtanh", **q), IMAGE),
    "resnet18_dprelu": (lambda **q: ResNet18(width=16, activation="dprelu", **q), IMAGE),
}
every_model = pytest.mark.parametrize(("make", "shape"), MODELS.values(), ids=MODELS)


@pytest.mark.parametrize("weights", [torch.contiguous_format, torch.channels_last])
@every_model
def test_plain_signs_give_the_same_bits_throughout(make, shape, weights):
    """Nothing is scaled, so every sum is exact, and torch's own rounding is kept everywhere."""
    model = shaken(make(**SIGN)).to(memory_format=weights)
    converted, report = lowbit.convert(model, keep_slower=True)
    assert report.folding == ""
    assert all(row.packed or "input is full precision" in row.why for row in report)
    for layout in (torch.contiguous_format, torch.channels_last):
        for images in (1, 3):
            drawn = integers((images, *shape))
            x = torch.empty(drawn.shape, memory_format=layout).copy_(drawn)
            with torch.no_grad():
                assert torch.equal(converted(x), model(x)), (layout, images)


@every_model
def test_scaled_signs_give_the_same_scores(make, shape):
    q = {"input_quantization": "approx_sign", "weight_quantization": "magnitude_aware_sign"}
    model = shaken(make(**q))
    converted, _ = lowbit.convert(model, keep_slower=True)
    x = integers((4, *shape))
    with torch.no_grad():
        expected, found = model(x), converted(x)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))
    assert torch.equal(found.argmax(1), expected.argmax(1))


@every_model
def test_without_folding_it_is_the_models_own_class(make, shape):
    model = shaken(make(**SIGN))
    converted, report = lowbit.convert(model, fold=False, keep_slower=True)
    assert type(converted) is type(model)
    assert report.folding == "fold=False"
    x = integers((2, *shape))
    with torch.no_grad():
        torch.testing.assert_close(converted(x), model(x), rtol=1e-5, atol=1e-4)


@every_model
def test_the_trained_model_is_left_alone(make, shape):
    model = shaken(make(**SIGN)).train()
    before = copy.deepcopy(model.state_dict())
    lowbit.convert(model, keep_slower=True)
    assert model.training
    assert not any(isinstance(m, PackedLayer) for m in model.modules())
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key]), key


def kinds(model: nn.Module) -> list[str]:
    return [type(m).__name__ for m in model.modules() if len(list(m.children())) == 0]


def test_between_the_layers_of_a_plain_network_there_are_bits_only():
    model = shaken(VGGSmall(width=32, **SIGN))
    converted, report = lowbit.convert(model, keep_slower=True)
    assert [row.output for row in report] == ["bits"] * 4 + ["float"]
    assert report[0].folded == ["features.4", "features.5"]
    assert kinds(converted) == [
        *("Conv2d", "FrozenNorm", "PackedConv2d", "PackedMaxPool2d"),
        *("PackedConv2d", "PackedConv2d", "PackedMaxPool2d", "PackedConv2d", "PackedConv2d"),
        *("MaxPool2d", "FrozenNorm", "Linear"),  # the norm does the ReLU
    ]


def test_a_residual_network_hands_on_numbers_and_their_signs():
    model = shaken(ResNet18(width=16, downsample="pool_float", **SIGN))
    converted, report = lowbit.convert(model, keep_slower=True)
    outputs = [row.output for row in report]
    assert outputs == ["both"] * 15 + ["float"]
    assert report[0].folded == ["layer1.0.bn1", "add"]
    left = kinds(converted)
    assert left.count("FrozenNorm") == 4  # of the stem and of the float shortcuts


def test_a_batch_norm_before_a_pool_of_lenet_is_decided_on_integers():
    model = shaken(LeNet(1, 10, 8, (32, 64), 96, kernel_size=3, padding=1, **SIGN))
    converted, report = lowbit.convert(model, keep_slower=True)
    assert [row.output for row in report] == ["bits", "float"]
    assert any(isinstance(m, PackedMaxPool2d) for m in converted.modules())
    assert report[1].folded == ["hidden.1", "hidden.2"]


def test_the_packed_resnet18_has_the_size_that_its_weights_have():
    """Float ends, shortcuts and first convolution are as they were; the rest is bits."""
    model = ResNet18(
        num_classes=1000, stem="imagenet", shortcut="conv", downsample="pool_float", **SIGN
    )
    converted, report = lowbit.convert(model, keep_slower=True)
    packed = sum(p.numel() for n, p in model.named_parameters() if ".conv" in n) // 8
    floats = sum(
        4 * p.numel()
        for n, p in model.named_parameters()
        if ".conv" not in n and not (n.startswith("layer") and ".bn" in n)
    )
    state = converted.state_dict()
    rows = sum(4 * t.numel() for name, t in state.items() if name.endswith(".params"))
    assert report.bytes_after == packed + floats + rows
    assert report.bytes_after <= 4.0 * 2**20
    assert sum(t.numel() * t.element_size() for t in state.values()) == (report.bytes_after)
