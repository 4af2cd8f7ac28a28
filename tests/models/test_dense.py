"""BinaryDenseNet and MeliusNet: what is concatenated, what is improved, what a transition does."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lowbit.models import BinaryDenseNet, MeliusNet
from lowbit.models._stems import dense_stem
from lowbit.models.binary_densenet import DenseLayer, ShuffleChannels, reduced, transition
from lowbit.models.meliusnet import VARIANTS, Improvement
from lowbit.nn import QConv2d

SIGN = {"input_quantization": "ste_sign", "weight_quantization": "sign"}
QUANTIZATION = {**SIGN, "gradient_cancellation_threshold": None, "pad_value": None}


def images(channels, side=8):
    return torch.randn(2, channels, side, side, generator=torch.Generator().manual_seed(0))


def test_a_dense_layer_puts_its_channels_behind_those_of_x():
    layer = DenseLayer(6, 4, 1, QUANTIZATION).eval()
    nn.init.normal_(layer.bn.running_mean)
    x = images(6)
    y = layer(x)
    assert torch.equal(y[:, :6], x)
    assert torch.equal(y[:, 6:], layer.conv(layer.bn(x)))


def test_an_improvement_adds_to_the_last_channels_alone():
    layer = Improvement(10, 4, QUANTIZATION).eval()
    nn.init.normal_(layer.bn.running_mean)
    x = images(10)
    y = layer(x)
    assert torch.equal(y[:, :6], x[:, :6])
    assert torch.equal(y[:, 6:], x[:, 6:] + layer.conv(layer.bn(x)))


def test_a_meliusnet_improves_what_the_layer_before_added():
    model = MeliusNet(variant="22", growth=4, width=8, **SIGN)
    blocks = [m for m in model.features if isinstance(m, DenseLayer | Improvement)]
    assert len(blocks) == 2 * (4 + 5 + 4 + 4)
    for dense, improvement in zip(blocks[::2], blocks[1::2], strict=True):
        assert isinstance(dense, DenseLayer)
        assert isinstance(improvement, Improvement)
        assert improvement.kept == dense.bn.num_features


def test_a_transition_pools_before_its_relu_and_shuffles_before_its_groups():
    part = transition(8, 4, groups=2).eval()
    assert [type(m) for m in part] == [
        *(nn.BatchNorm2d, nn.MaxPool2d, nn.ReLU, ShuffleChannels, nn.Conv2d)
    ]
    nn.init.normal_(part[0].running_mean)
    x = images(8)
    y = F.relu(F.max_pool2d(part[0](x), 2))
    y = F.conv2d(F.channel_shuffle(y, 2), part[4].weight, groups=2)
    assert torch.equal(part(x), y)


@pytest.mark.parametrize("variant", VARIANTS)
def test_meliusnets_have_the_channels_of_their_table(variant):
    with torch.device("meta"):
        model = MeliusNet(variant=variant, **SIGN)
    points = [m for m in model.features.modules() if type(m) is nn.Conv2d and m.kernel_size[0] == 1]
    blocks, features, groups = VARIANTS[variant]
    assert [m.out_channels for m in points] == list(features)
    assert {m.groups for m in points} == {groups}
    assert model.fc.in_features == features[-1] + 64 * blocks[-1]


@pytest.mark.parametrize(
    ("depth", "channels"),
    [(28, [160, 192, 256]), (37, [128, 192, 256]), (45, [160, 288, 288])],
)
def test_binary_densenets_reduce_to_multiples_of_32(depth, channels):
    with torch.device("meta"):
        model = BinaryDenseNet(depth=depth, **SIGN)
    points = [m for m in model.features.modules() if type(m) is nn.Conv2d and m.kernel_size[0] == 1]
    assert [m.out_channels for m in points] == channels


def test_a_reduction_is_of_the_floor_of_the_quotient():
    assert reduced(448, 2.7) == 160  # 165.9, of which 165 / 32 rounds to 5
    assert reduced(178, 2.2) == 64  # 80.9, of which 80 / 32 = 2.5 rounds to the even 2
    assert reduced(40, 4) == 32  # at least


def test_a_dilated_network_ends_at_an_eighth_of_the_image():
    model = BinaryDenseNet(stem="imagenet", dilated=True, growth=4, width=8, **SIGN)
    dilations = [m.dilation[0] for m in model.modules() if isinstance(m, QConv2d)]
    assert dilations == [1] * 12 + [2] * 6 + [4] * 5
    assert model.features(images(3, 64)).shape[2:] == (8, 8)


def test_the_grouped_stem_makes_a_quarter_in_groups_of_4_and_8():
    stem = dense_stem("grouped", 3, 16)
    convolutions = [m for m in stem if isinstance(m, nn.Conv2d)]
    assert [m.groups for m in convolutions] == [1, 4, 8]
    assert [m.out_channels for m in convolutions] == [8, 8, 16]
    assert stem(images(3, 32)).shape == (2, 16, 8, 8)


def test_between_norm_and_convolution_stands_a_relu_in_a_float_network():
    for model in (
        BinaryDenseNet(layers=(1, 1), reductions=(2,), growth=4, width=8),
        MeliusNet(growth=4, width=16),
    ):
        layers = [m for m in model.features if isinstance(m, DenseLayer | Improvement)]
        assert {type(layer.act) for layer in layers} == {nn.ReLU}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: BinaryDenseNet(depth=29), "depth is one of 28, 37, 45; got 29"),
        (lambda: BinaryDenseNet(layers=(1, 2)), "layers and reductions go together"),
        (lambda: BinaryDenseNet(layers=(1, 2), reductions=()), "2 stages and 0 reductions"),
        (
            lambda: BinaryDenseNet(layers=(1, 2), reductions=(2,), dilated=True),
            "four stages; got 2",
        ),
        (lambda: BinaryDenseNet(stem="imagenet_bn"), "stem is one of cifar, imagenet, grouped"),
        (lambda: MeliusNet(variant="23"), "variant is one of 22, 29, 42, 59, a, b, c; got '23'"),
        (lambda: MeliusNet(stem="grouped", width=8), "multiple of 16; got 8"),
    ],
)
def test_a_wrong_argument_is_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()
