"""The variants of residual networks compute what their papers say."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lowbit.models import ResNet, ResNet18
from lowbit.models._residual import BasicBlock, PadChannels, PreActivationBlock
from lowbit.nn import QConv2d, RPReLU, latent_layers

SIGN = {"input_quantization": "ste_sign", "weight_quantization": "sign"}
QUANTIZATION = {**SIGN, "gradient_cancellation_threshold": None, "pad_value": 0}


def images(channels=4, side=8, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, channels, side, side, generator=generator)


def shaken(model):
    """In eval mode, with running statistics that are not those of the start."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.5, 2)
    return model.eval()


def test_option_a_keeps_every_second_value_between_zero_channels():
    x = images(4)
    y = PadChannels(4, stride=2)(x)
    assert y.shape == (2, 8, 4, 4)
    assert torch.equal(y[:, 2:6], x[:, :, ::2, ::2])
    assert not y[:, :2].any()
    assert not y[:, 6:].any()


def test_a_shortcut_by_pooling_pads_the_mean():
    model = ResNet(depth=20, width=4, downsample="pool_pad", **SIGN)
    x = images(4)
    y = model.layer2[0].downsample(x)
    assert torch.equal(y[:, 2:6], F.avg_pool2d(x, 2))
    assert y.shape[1] == 8


def test_ir_nets_blocks_add_before_hardtanh_around_every_convolution():
    block = shaken(
        BasicBlock(
            4,
            8,
            2,
            shortcut="conv",
            downsample="pad",
            activation="hardtanh",
            quantization=QUANTIZATION,
        )
    )
    x = images()
    y = F.hardtanh(block.bn1(block.conv1(x)) + PadChannels(4, 2)(x))
    assert torch.equal(block(x), F.hardtanh(block.bn2(block.conv2(y)) + y))


@pytest.mark.parametrize("downsample", ["float", "pool_pad"])
@pytest.mark.parametrize("shortcut", ["block", "conv"])
def test_pre_activation_blocks_add_behind_the_convolution(shortcut, downsample):
    block = shaken(
        PreActivationBlock(
            4,
            8,
            2,
            shortcut=shortcut,
            downsample=downsample,
            activation="relu",
            quantization=QUANTIZATION,
        )
    )
    x = images()
    a = F.relu(block.bn1(x))
    # A projection reads the activated value, a parameter-free shortcut x itself.
    s = block.downsample(a if downsample == "float" else x)
    y = block.conv1(a)
    if shortcut == "conv":
        y = y + s
        s = y
    assert torch.equal(block(x), block.conv2(F.relu(block.bn2(y))) + s)


def test_the_first_block_behind_a_normed_stem_has_no_norm_of_its_own():
    ttq = ResNet(depth=20, order="bn_act", shortcut="block", downsample="pool_pad")
    assert isinstance(ttq.bn1, nn.BatchNorm2d)
    assert isinstance(ttq.layer1[0].bn1, nn.Identity)
    assert isinstance(ttq.layer1[1].bn1, nn.BatchNorm2d)
    distiller = ResNet(depth=20, order="bn_act", stem_norm=False, downsample="pool_pad")
    assert isinstance(distiller.bn1, nn.Identity)
    assert isinstance(distiller.act1, nn.Identity)
    assert isinstance(distiller.layer1[0].bn1, nn.BatchNorm2d)
    assert [type(m) for m in distiller.end] == [nn.BatchNorm2d, nn.ReLU]


def test_ir_nets_norm_stands_between_mean_and_last_layer():
    model = shaken(ResNet(depth=20, width=4, head="bn", **SIGN))
    x = images(3, 16)
    y = model.bn1(model.conv1(x))
    y = model.layer3(model.layer2(model.layer1(y)))
    assert torch.equal(model(x), model.fc(model.norm(y.mean((2, 3)))))
    assert isinstance(model.norm, nn.BatchNorm1d)


def test_resnet_e_has_a_norm_behind_the_pooling_and_relus_at_both_ends():
    model = shaken(
        ResNet(
            width=4,
            stem="imagenet_bn",
            downsample="pool_float",
            stem_activation="relu",
            head="relu",
            **SIGN,
        )
    )
    x = images(3, 40)
    y = F.max_pool2d(F.relu(model.bn1(model.conv1(x))), 3, 2, 1)
    y = model.pool[1](y)
    for stage in (model.layer1, model.layer2, model.layer3, model.layer4):
        y = stage(y)
    assert torch.equal(model(x), model.fc(F.relu(y).mean((2, 3))))
    kinds = [type(m) for m in model.layer2[0].downsample]
    assert kinds == [nn.AvgPool2d, nn.Conv2d, nn.BatchNorm2d]


def test_reactnet_18_has_rprelus_in_the_blocks_and_nothing_in_the_stem():
    model = ResNet(
        width=4,
        activation="rprelu",
        stem_activation="identity",
        input_quantization="rsign",
        weight_quantization="bireal_weight",
    )
    assert isinstance(model.act1, nn.Identity)
    assert sum(isinstance(m, RPReLU) for m in model.modules()) == 16


@pytest.mark.parametrize(("init", "negative"), [("kaiming", True), ("bireal", False)])
def test_bireals_weights_start_between_0_and_a_thousandth(init, negative):
    model = ResNet(width=4, weight_init=init, downsample="pool_float", **SIGN)
    for _, layer in latent_layers(model):
        assert bool((layer.weight < 0).any()) == negative
        assert negative or layer.weight.max() <= 1e-3
    # The float layers start as ever.
    assert (model.conv1.weight < 0).any()
    assert (model.layer2[0].downsample[1].weight < 0).any()


@pytest.mark.parametrize("quantized", [{}, {"input_quantization": "rsign"}])
def test_bireals_start_is_of_binary_weights_alone(quantized):
    """Step 1 of ReActNet trains real weights behind binary inputs: plain convolutions there."""
    model = ResNet(width=4, weight_init="bireal", **quantized)
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            assert (module.weight < 0).any()


def test_glorots_start_has_the_variance_of_both_fans():
    conv = ResNet(width=16, depth=20, weight_init="glorot").layer2[0].conv1
    expected = (2 / (9 * (16 + 32))) ** 0.5
    assert float(conv.weight.detach().std()) == pytest.approx(expected, rel=0.05)


@pytest.mark.parametrize(
    ("init", "last"), [("kaiming_in", 64**-0.5 / 3**0.5), ("kaiming_in_fc", (2 / 64) ** 0.5)]
)
def test_starts_by_fan_in(init, last):
    """IR-Net's code starts all layers so, ReCU's its convolutions: the last layer is torch's."""
    model = ResNet(num_classes=1000, depth=20, weight_init=init, **SIGN)
    conv = model.layer2[0].conv1
    assert (conv.in_channels, conv.out_channels) == (16, 32)
    assert float(conv.weight.detach().std()) == pytest.approx((2 / (9 * 16)) ** 0.5, rel=0.05)
    assert float(model.fc.weight.detach().std()) == pytest.approx(last, rel=0.02)


def test_norms_of_images_start_from_norm_weight():
    model = ResNet(width=4, head="bn", norm_weight=1e-8)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert torch.equal(module.weight.detach(), torch.full_like(module.weight, 1e-8))
    assert torch.equal(model.norm.weight.detach(), torch.ones(32))


def test_norm_options_reach_all_norms():
    model = ResNet(width=4, head="bn", norm_eps=1e-3, norm_momentum=0.2)
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d)]
    assert {(m.eps, m.momentum) for m in norms} == {(1e-3, 0.2)}


def test_lq_nets_blocks_have_a_norm_behind_their_second_convolution():
    lq = {"order": "bn_act", "shortcut": "block", "activation": "relu", **SIGN}
    model = shaken(ResNet(width=4, block_norm=True, **lq))
    block = model.layer1[1]
    x = images()
    y = block.conv1(F.relu(block.bn1(x)))
    expected = block.bn3(block.conv2(F.relu(block.bn2(y)))) + x
    assert torch.equal(block(x), expected)
    assert type(ResNet(width=4, **lq).layer1[1].bn3) is nn.Identity


def test_the_stem_may_be_the_convolution_alone():
    """ResNetE for CIFAR: a sign reads the first convolution, not a ReLU, which is +1 everywhere."""
    model = ResNet(width=4, stem="cifar", stem_activation="relu", stem_norm=False, **SIGN)
    seen = []
    model.layer1.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    x = images(3)
    model(x)
    assert torch.equal(seen[0], model.conv1(x))
    assert (seen[0] < 0).any()


@pytest.mark.parametrize(
    ("depth", "convolutions"), [(18, 16), (34, 32), (20, 18), (32, 30), (56, 54)]
)
def test_the_depth_counts_convolutions_and_both_ends(depth, convolutions):
    with torch.device("meta"):
        model = ResNet(depth=depth, downsample="pad", **SIGN)
    assert sum(isinstance(m, QConv2d) for m in model.modules()) == convolutions


def test_resnet18_is_the_resnet_of_its_arguments():
    torch.manual_seed(0)
    ours = ResNet18(width=4, **SIGN)
    torch.manual_seed(0)
    general = ResNet(depth=18, width=4, **SIGN)
    assert list(ours.state_dict()) == list(general.state_dict())
    x = images(3, 16)
    assert torch.equal(ours.eval()(x), general.eval()(x))


def test_resnet18_has_the_names_that_checkpoints_have():
    names = {
        name.rsplit(".", 1)[0] for name in ResNet18(width=4, stem="imagenet", **SIGN).state_dict()
    }
    blocks = {f"layer{stage}.{block}" for stage in (1, 2, 3, 4) for block in (0, 1)}
    layers = {f"{b}.{layer}" for b in blocks for layer in ("conv1", "bn1", "conv2", "bn2")}
    downsamples = {f"layer{stage}.0.downsample.{i}" for stage in (2, 3, 4) for i in (0, 1)}
    assert names == {"conv1", "bn1", "fc"} | layers | downsamples


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"depth": 19}, "depth is 18 or 34 .four stages.*got 19"),
        ({"order": "act_bn"}, "order is one of conv_bn, conv_act_bn, bn_act"),
        ({"head": "tanh"}, "head is one of plain, relu, bn, bn_relu"),
        ({"downsample": "max"}, "downsample is one of float, pool_float, quantized, pad, pool_pad"),
        ({"weight_init": "zero"}, "weight_init is one of kaiming, kaiming_in"),
        ({"block_norm": True}, "block_norm is of order='bn_act'.*got order='conv_bn'"),
    ],
)
def test_a_wrong_argument_is_named(options, message):
    with pytest.raises(ValueError, match=message):
        ResNet(**options)


@pytest.mark.parametrize("order", ["conv_bn", "bn_act"])
def test_the_first_convolution_may_read_real_numbers(order):
    model = ResNet(width=4, order=order, stem_norm=False, real_input=True, **SIGN)
    first, second = model.layer1
    assert first.conv1.input_quantization is None
    assert first.conv1.weight_quantization is not None
    others = [m for m in model.modules() if isinstance(m, QConv2d) and m is not first.conv1]
    assert all(m.input_quantization is not None for m in others)
    if order == "bn_act":  # what it reads has a nonlinearity of its own
        assert [type(b.act1) for b in (first, second)] == [nn.ReLU, nn.Identity]


def test_ir_nets_network_of_binary_weights_has_a_relu_before_its_last_layer():
    model = shaken(ResNet(width=4, head="bn_relu", activation="relu", **SIGN))
    seen = []
    model.fc.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    model(images(3))
    assert seen[0].min() == 0
