"""The other networks of the papers: places of norms, ends, paddings, and what is quantized."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import lowbit
from lowbit.models import (
    CNV,
    NIN,
    Airbench,
    BinaryAlexNet,
    BinaryNet,
    BNext,
    BottleneckResNet,
    DoReFaAlexNet,
    FinnMLP,
    LeNet,
    MobileNetV1,
    MobileNetV2,
    PokeBNN,
    ReActNet,
    RealToBinaryNet,
    XNORAlexNet,
)
from lowbit.models._tensor_norm import TensorNorm
from lowbit.models.reactnet import ReActBlock
from lowbit.models.real_to_binary import HalfBlock
from lowbit.nn import QActivation, QConv2d, QLinear, QuantizedLayer

SIGN = {"input_quantization": "ste_sign", "weight_quantization": "sign"}
QUANTIZATION = {**SIGN, "gradient_cancellation_threshold": None, "pad_value": 0}
SCALED = {"name": "xnor", "act_scale": True}
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)


def images(channels=3, side=8, count=2):
    return torch.randn(count, channels, side, side, generator=torch.Generator().manual_seed(0))


def kinds(*parts):
    return [type(m).__name__ for part in parts for m in part]


def shaken(model):
    for module in model.modules():
        if isinstance(module, NORMS):
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.5, 2)
    return model.eval()


# ReActNet and Real-to-Binary


def test_a_react_block_gives_both_halves_of_its_doubled_channels_the_same_shortcut():
    block = shaken(ReActBlock(4, 8, 2, activation="rprelu", quantization=QUANTIZATION))
    x = images(4)
    y = block.act1(block.bn(block.conv(x)) + F.avg_pool2d(x, 2))
    q = block.quantizer(y)
    assert torch.equal(q.unique(), torch.tensor([-1.0, 1.0]))
    halves = [
        block.point_bn1(block.point1(q)) + y,
        block.point_bn2(block.point2(q)) + y,
    ]
    assert torch.equal(block(x), block.act2(torch.cat(halves, 1)))


def test_one_shift_serves_both_halves_of_doubled_channels():
    """Of the repository: move21 and one sign in front of binary_pw_down1 and binary_pw_down2."""
    q = {**QUANTIZATION, "input_quantization": "rsign", "gradient_cancellation_threshold": 1.0}
    block = ReActBlock(4, 8, 2, activation="rprelu", quantization=q)
    assert [p.numel() for n, p in block.named_parameters() if n.endswith("quantization.shift")] == [
        4,
        4,
    ]
    assert block.quantizer.gradient_cancellation_threshold == 1.0
    kept = ReActBlock(4, 4, 1, activation="rprelu", quantization=q)
    assert type(kept.quantizer) is nn.Identity
    with torch.device("meta"):
        model = ReActNet(
            num_classes=1000, activation="rprelu", **{**SIGN, "input_quantization": "rsign"}
        )
    assert sum(p.numel() for p in model.parameters()) == 29_343_592


def test_reactnet_a_halves_the_size_where_channels_double_but_for_the_first():
    with torch.device("meta"):
        model = ReActNet(**SIGN)
    strides = [block.conv.stride[0] for block in model.blocks]
    assert strides == [1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1]
    assert model.stem[0].stride == (2, 2)
    assert {m.pad_value for m in model.modules() if isinstance(m, QConv2d)} == {0.0}


def test_reactnets_binary_weights_start_between_0_and_a_thousandth():
    model = ReActNet(channels=(8, 16), **SIGN)
    weights = torch.cat([m.weight.flatten() for m in model.modules() if isinstance(m, QConv2d)])
    assert weights.min() >= 0
    assert weights.max() <= 1e-3
    assert (model.stem[0].weight < 0).any()


def test_a_half_block_scales_by_its_normalised_input_before_prelu_and_addition():
    block = shaken(HalfBlock(8, 16, 2, scale="input", side=4, quantization=QUANTIZATION))
    x = images(8)
    a = block.bn(x)
    y = block.prelu(block.scale(block.conv(a), a))
    torch.testing.assert_close(block(x), y + block.downsample(x))


def test_the_strong_baseline_learns_a_scale_for_every_place():
    model = RealToBinaryNet(image_size=16, scale="learned", width=8, **SIGN)
    sizes = [tuple(s.numel() for s in block.scale.scales) for block in model.blocks]
    assert sizes == [(8, 16, 16)] * 4 + [(16, 8, 8)] * 4 + [(32, 4, 4)] * 4 + [(64, 2, 2)] * 4


def test_real_to_binarys_norms_are_keras():
    norms = [m for m in RealToBinaryNet(width=8).modules() if isinstance(m, nn.BatchNorm2d)]
    assert {(m.momentum, m.eps) for m in norms} == {(0.01, 1e-3)}


# AlexNets


def test_xnor_alexnet_has_a_norm_in_front_of_each_quantized_layer():
    model = XNORAlexNet(image_size=64, channels=(8, 8, 8, 8, 8), features=16, **SIGN)
    block = ["BatchNorm2d", "Identity", "QConv2d"]
    assert kinds(model.features) == [
        *("Conv2d", "BatchNorm2d", "ReLU", "MaxPool2d"),
        *(*block, "MaxPool2d", *block, *block, *block, "MaxPool2d", *block, *block),
        *("BatchNorm2d", "ReLU"),
    ]
    norms = [m.eps for m in model.features if isinstance(m, nn.BatchNorm2d)]
    assert norms == [1e-5, *[1e-4] * 6, 1e-3]


def test_alexnet_of_binary_weights_has_a_norm_and_relu_behind_each_layer():
    """alexnet.lua, which XNOR-Net's repository trains its BWN with."""
    small = {"image_size": 64, "channels": (8, 8, 8, 8, 8), "features": 16}
    model = XNORAlexNet(order="conv_bn", dropout=0.1, weight_quantization="xnor", **small)
    block = ["QConv2d", "BatchNorm2d", "ReLU"]
    assert kinds(model.features) == [
        *("Conv2d", "BatchNorm2d", "ReLU", "MaxPool2d"),
        *(*block, "MaxPool2d", *block, *block, *block, "MaxPool2d"),
        *("Dropout2d", *block, "Dropout2d", *block),
    ]
    assert {m.eps for m in model.features if isinstance(m, nn.BatchNorm2d)} == {1e-3}
    assert all(m.bias is not None for m in model.features if isinstance(m, nn.Conv2d))
    assert model(images(3, 64)).shape == (2, 10)


@pytest.mark.parametrize(
    ("quantizer", "expected"),
    [
        (None, nn.ReLU),
        ("sign", nn.Identity),
        ({"name": "dorefa_input", "bits": 8}, nn.Identity),
        ({"name": "lsq", "bits": 4}, nn.ReLU),
        ({"name": "lsq", "bits": 4, "signed": False}, nn.Identity),
        ({"name": "int_k", "bits": 8}, nn.ReLU),
    ],
    ids=str,
)
def test_dorefa_alexnet_is_never_without_a_nonlinearity(quantizer, expected):
    sizes = {"image_size": 48, "channels": (2, 2, 2, 2, 2), "features": 4}
    model = DoReFaAlexNet(input_quantization=quantizer, weight_quantization="sign", **sizes)
    assert type(model.features[1]) is expected
    assert type(model.hidden[-1]) is (nn.ReLU if expected is nn.ReLU else nn.Hardtanh)


def test_dorefa_alexnets_poolings_are_tensorflows():
    """Two with SAME padding, to half the size rounded up, and one without."""
    model = DoReFaAlexNet(channels=(2, 2, 2, 2, 2), features=4)
    sizes = []
    for module in model.features:
        if isinstance(module, nn.MaxPool2d):
            module.register_forward_hook(lambda _, i, o: sizes.append((i[0].shape[2], o.shape[2])))
    model.eval()(images(3, 224, 1))
    assert sizes == [(54, 27), (27, 14), (14, 6)]


def test_same_padding_of_an_even_image_is_all_at_the_end():
    pool = DoReFaAlexNet(channels=(2, 2, 2, 2, 2), features=4).features[4]
    x = images(1, 54, 1)
    padded = F.pad(x, (0, 1, 0, 1), value=-torch.inf)
    assert torch.equal(pool(x), F.max_pool2d(padded, 3, 2))


def test_dorefas_last_nonlinearity_is_the_clip_of_its_quantizer():
    low = {"input_quantization": {"name": "dorefa_input", "bits": 2}}
    sizes = {"image_size": 48, "channels": (2, 2, 2, 2, 2), "features": 4}
    clip = DoReFaAlexNet(**sizes, **low).hidden[-1]
    assert (clip.min_val, clip.max_val) == (0.0, 1.0)
    assert type(DoReFaAlexNet(**sizes).hidden[-1]) is nn.ReLU


def test_binary_alexnet_is_binary_from_the_first_layer_to_the_last():
    model = BinaryAlexNet(image_size=60, channels=(4, 4, 4, 4, 4), features=8, **SIGN)
    layers = [m for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    assert all(isinstance(m, QuantizedLayer) for m in layers)
    assert [m.input_quantization is None for m in layers] == [True, *[False] * 7]
    assert layers[0].pad_value == 0
    assert kinds(model.features)[:4] == ["QConv2d", "MaxPool2d", "BatchNorm2d", "Identity"]


# Small networks


def test_binarynet_pools_before_its_norm_and_ends_with_one():
    model = BinaryNet(width=4, hidden=(8,), **SIGN)
    single = ["QConv2d", "BatchNorm2d", "Identity"]
    pooled = ["QConv2d", "MaxPool2d", "BatchNorm2d", "Identity"]
    assert kinds(model.features) == [*single, *pooled] * 3
    assert kinds(model.classifier) == [
        *("QLinear", "BatchNorm1d", "Identity", "QLinear", "BatchNorm1d")
    ]
    assert {(m.eps, m.momentum) for m in model.modules() if isinstance(m, NORMS)} == {(1e-4, 0.1)}
    assert model.features[0].input_quantization is None


@pytest.mark.parametrize("model", [BinaryNet(16, 10, 16, width=4), BinaryAlexNet(image_size=60)])
def test_without_norm_scale_the_factors_stay_as_they_are(model):
    scaled = isinstance(model, BinaryNet)
    for module in model.modules():
        if isinstance(module, NORMS):
            assert module.weight.requires_grad == scaled
            assert module.bias.requires_grad


def test_binarynet_of_binaryconnect_has_relus():
    model = BinaryNet(width=4, weight_quantization="sign")
    assert sum(isinstance(m, nn.ReLU) for m in model.modules()) == 8


def test_nin_has_its_dropout_between_quantizer_and_convolution():
    model = NIN(width=12, **SIGN)
    plain, dropped = model.features[3], model.features[6]
    assert kinds(plain) == ["BatchNorm2d", "QConv2d", "ReLU"]
    assert kinds(dropped) == ["BatchNorm2d", "QActivation", "Dropout", "QConv2d", "ReLU"]
    assert dropped[3].input_quantization is None
    seen = []
    dropped[3].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    model.train()(images(3, 16))
    assert seen[0].unique().tolist() == [-2.0, 0.0, 2.0]


def test_nins_convolutions_start_with_a_deviation_of_a_twentieth():
    convs = [m for m in NIN().modules() if isinstance(m, nn.Conv2d)]
    assert len(convs) == 9
    for conv in convs:
        assert float(conv.weight.detach().std()) == pytest.approx(0.05, rel=0.1)
        assert not conv.bias.any()
    assert any(m.bias.any() for m in NIN(conv_std=None).modules() if isinstance(m, nn.Conv2d))


def test_nins_outer_norms_have_no_parameters():
    norms = [m for m in NIN(width=12).modules() if isinstance(m, nn.BatchNorm2d)]
    assert [m.affine for m in norms] == [False, *[True] * 7, False]
    assert {m.eps for m in norms} == {1e-4}


def test_padding_behind_dropout_is_that_of_the_quantizer():
    for pad_value, expected in ((None, -1.0), (0, 0.0), (1, 1.0)):
        model = NIN(width=12, pad_value=pad_value, **SIGN)
        assert {m.pad_value for m in model.modules() if isinstance(m, QConv2d)} == {expected}


def test_finns_perceptron_quantizes_the_image_and_drops_behind_each_quantizer():
    model = FinnMLP(hidden=(8, 8), **SIGN)
    block = ["QActivation", "Dropout", "QLinear"]
    hidden = [*block, "BatchNorm1d", "Identity"]
    assert kinds(model.layers) == ["Flatten", *hidden, *hidden, *block, "TensorNorm"]
    assert all(m.p == 0.2 for m in model.modules() if isinstance(m, nn.Dropout))
    plain = FinnMLP(hidden=(8, 8), dropout=0, **SIGN)
    assert not any(isinstance(m, QActivation) for m in plain.modules())


def test_finns_weights_start_between_minus_one_and_one():
    for model in (FinnMLP(hidden=(64,), **SIGN), CNV(width=8, hidden=(16,), **SIGN)):
        for layer in model.modules():
            if isinstance(layer, QConv2d | QLinear):
                assert layer.weight.abs().max() <= 1
                assert layer.weight.abs().max() > 0.9


def test_cnvs_image_goes_through_a_quantizer_of_its_own():
    model = CNV(width=4, hidden=(8,), image_quantization={"name": "int_k", "bits": 8}, **SIGN)
    assert isinstance(model.features[0], QActivation)
    assert model(images(3, 32)).shape == (2, 10)
    assert kinds(CNV(width=4, **SIGN).features)[:7] == [
        *("QConv2d", "BatchNorm2d", "Identity"),
        *("QConv2d", "BatchNorm2d", "Identity", "MaxPool2d"),
    ]


def test_tensor_norm_has_one_mean_and_one_variance_for_all():
    norm, x = TensorNorm(), torch.randn(6, 5) * 3 + 1
    y = norm(x)
    expected = (x - x.mean()) / (x.var(unbiased=False) + 1e-4).sqrt()
    torch.testing.assert_close(y, expected)
    running = 0.1 * x.mean()
    torch.testing.assert_close(norm.norm.running_mean, running.reshape(1))
    torch.testing.assert_close(norm.norm.running_var, (0.9 + 0.1 * x.var()).reshape(1))
    assert torch.equal(norm.eval()(x).argmax(1), x.argmax(1))


def test_twns_lenet_is_quantized_throughout_with_its_nonlinearity_before_the_pooling():
    model = LeNet(channels=(4, 6), features=8, order="conv_bn_pool", weight_quantization="twn")
    block = ["QConv2d", "BatchNorm2d", "ReLU", "MaxPool2d"]
    assert kinds(model.features, model.hidden) == [*block, *block, "QLinear", "BatchNorm1d", "ReLU"]
    assert type(model.fc) is QLinear
    layers = [m for m in model.modules() if isinstance(m, QuantizedLayer)]
    assert len(layers) == 4
    assert all(m.weight_quantization is not None and m.bias is not None for m in layers)


# Airbench


def plain_airbench(model, x):
    """airbench94's forward pass, operation by operation."""
    x = F.gelu(F.conv2d(x, model.whiten.weight, model.whiten.bias))
    for group in model.groups:
        x = F.max_pool2d(F.conv2d(x, group.conv1.weight, padding=1), 2)
        x = F.gelu(group.bn1(x))
        x = F.gelu(group.bn2(F.conv2d(x, group.conv2.weight, padding=1)))
    return F.max_pool2d(x, 3).flatten(1) @ model.fc.weight.T


def test_airbench_without_quantizers_and_shortcuts_is_airbench94():
    model = shaken(Airbench(activation="gelu", shortcut=False))
    x = images(3, 32)
    torch.testing.assert_close(model(x), plain_airbench(model, x))


def test_a_group_of_airbench_adds_what_goes_around_each_convolution():
    model = shaken(Airbench(channels=(26, 26, 26), **SIGN))
    group = model.groups[0]
    x = torch.randn(2, 24, 7, 7)
    signs = lambda t: torch.where(t >= 0, 1.0, -1.0)  # noqa: E731
    conv = lambda t, w: F.conv2d(F.pad(signs(t), [1] * 4, value=-1.0), signs(w))  # noqa: E731
    around = F.pad(F.avg_pool2d(x, 2), (0, 0, 0, 0, 1, 1))
    y = group.bn1(F.max_pool2d(conv(x, group.conv1.weight), 2)) + around
    z = group.bn2(conv(y, group.conv2.weight)) + y
    torch.testing.assert_close(group(x), z)


def test_the_whitening_of_airbench_makes_patches_white():
    torch.manual_seed(0)
    mixed = torch.randn(50, 3, 8, 8).cumsum(-1) * torch.tensor([1.0, 2.0, 0.1])[:, None, None]
    model = Airbench()
    model.fit_whitening(mixed)
    nn.init.zeros_(model.whiten.bias)
    y = model.whiten(mixed).transpose(0, 1).flatten(1)
    torch.testing.assert_close(y[:12], -y[12:])
    moments = y[:12] @ y[:12].T / y.shape[1]
    assert (moments - moments.diagonal().diag()).abs().max() < 1e-3
    assert moments.diagonal().max() < 1 + 1e-3
    assert moments.diagonal().max() > 0.99
    assert not model.whiten.weight.requires_grad


# MobileNets


@pytest.mark.parametrize("made", [MobileNetV1, MobileNetV2])
def test_no_relu6_of_a_mobilenet_makes_all_signs_plus(made):
    real = made(multiplier=0.25, input_quantization={"name": "lsq", "bits": 8})
    assert sum(isinstance(module, nn.ReLU6) for module in real.modules()) > 20
    model = made(multiplier=0.25, **SIGN)
    seen = []
    for module in model.modules():
        if isinstance(module, QConv2d):
            module.register_forward_pre_hook(lambda _, x: seen.append(float(x[0].min())))
    model(images(side=64, count=8))
    assert len(seen) > 20
    assert max(seen) < 0


def test_mobilenet_v2_is_torchvisions_without_quantizers():
    models = pytest.importorskip("torchvision.models")
    theirs = shaken(models.mobilenet_v2(width_mult=0.25, num_classes=7))
    ours = MobileNetV2(num_classes=7, multiplier=0.25).eval()
    ours.load_state_dict(theirs.state_dict())
    x = images(3, 64)
    torch.testing.assert_close(ours(x), theirs(x), rtol=1e-5, atol=1e-5)


def test_resnet50_is_torchvisions_without_quantizers():
    models = pytest.importorskip("torchvision.models")
    theirs = shaken(models.resnet50(num_classes=7))
    ours = BottleneckResNet(num_classes=7).eval()
    ours.load_state_dict(theirs.state_dict())
    x = images(3, 64)
    torch.testing.assert_close(ours(x), theirs(x), rtol=1e-4, atol=1e-4)


def test_resnet50_quantizes_all_but_the_ends():
    model = BottleneckResNet(width=4, **SIGN)
    convolutions = [m for m in model.modules() if isinstance(m, nn.Conv2d)]
    assert type(convolutions[0]) is nn.Conv2d
    assert sum(isinstance(m, QConv2d) for m in convolutions) == 48 + 4
    assert [m.stride for m in (model.layer2[0].conv1, model.layer2[0].conv2)] == [(1, 1), (2, 2)]
    keras = BottleneckResNet(width=4, strided="conv1")
    assert [m.stride for m in (keras.layer2[0].conv1, keras.layer2[0].conv2)] == [(2, 2), (1, 1)]


def test_mobilenets_quantize_all_but_the_ends():
    for model, count in (
        (MobileNetV1(multiplier=0.125, **SIGN), 26),
        (MobileNetV2(multiplier=0.25, **SIGN), 51),
    ):
        convolutions = [m for m in model.modules() if isinstance(m, nn.Conv2d)]
        assert type(convolutions[0]) is nn.Conv2d
        assert len(convolutions) == count + 1
        assert all(isinstance(m, QConv2d) for m in convolutions[1:])


@pytest.mark.parametrize(
    ("make", "within"),
    [
        (lambda: MobileNetV1(multiplier=0.25), 0.03),
        (lambda: MobileNetV2(multiplier=0.25), 0.03),
        # With drawn weights its sums, normalised after few images, amplify every rounding.
        (lambda: BottleneckResNet(width=16), 0.25),
    ],
    ids=["mobilenet_v1", "mobilenet_v2", "resnet50"],
)
def test_networks_of_8_bits_go_to_int8_layer_by_layer(make, within):
    torch.manual_seed(0)
    model, x = make(), images(3, 64, 4)
    for _ in range(3):  # running statistics of these images
        model.train()(x)
    prepared = lowbit.prepare(model.eval())
    prepared(x)
    converted, report = lowbit.convert(prepared, to="int8")
    assert all(row.bits == "8x8" for row in report)
    assert len(report) == sum(isinstance(m, nn.Conv2d | nn.Linear) for m in model.modules())
    expected = model(x)
    assert (converted(x) - expected).norm() < within * expected.norm()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: XNORAlexNet(image_size=62), "image_size=62 is too small.*at least 63"),
        (lambda: DoReFaAlexNet(image_size=43), "image_size=43 is too small.*at least 44"),
        (lambda: BinaryAlexNet(image_size=58), "image_size=58 is too small.*at least 59"),
        (lambda: CNV(image_size=31), "image_size=31 is too small.*at least 32"),
        (lambda: BinaryNet(image_size=7), "image_size=7 with first_padding=1 is too small"),
        (lambda: NIN(width=100), "multiple of 6.*got 100"),
        (
            lambda: NIN(input_quantization="sign", weight_quantization=SCALED),
            "act_scale.*dropout=0.5 stands between: give dropout=0",
        ),
        (lambda: FinnMLP(weight_quantization=SCALED), "act_scale.*give dropout=0"),
        (lambda: XNORAlexNet(dropout=0.1), "dropout=0.1 is of order='conv_bn' on real inputs"),
        (
            lambda: XNORAlexNet(order="conv_bn", dropout=0.1, **SIGN),
            "got order='conv_bn', input_quantization='ste_sign'",
        ),
        (lambda: ReActNet(channels=(8, 24)), "keeps or doubles its channels; got 8 to 24"),
        (lambda: RealToBinaryNet(scale="none"), "scale is one of input, learned"),
        (lambda: MobileNetV1(multiplier=0.01), "multiplier=0.01 leaves no channel of 32"),
        (lambda: MobileNetV2(multiplier=0), "multiplier must be above 0; got 0"),
        (
            lambda: Airbench(channels=(8, 16)),
            r"from the 24 .*got channels=\(8, 16\).*shortcut=False",
        ),
        (lambda: Airbench().fit_whitening(torch.ones(2, 1, 8, 8)), r"images are \(n, 3, h, w\)"),
        (lambda: BNext(blocks=2), "blocks is a list of at least 1 for each stage; got 2"),
        (lambda: BNext(blocks=(1, 0)), r"for each stage; got \(1, 0\)"),
        (lambda: PokeBNN(stem_groups=24), "stem_groups divides the stem's 64 channels; got 24"),
        (lambda: BottleneckResNet(depth=34), "depth is one of 50, 101, 152; got 34"),
        (lambda: BottleneckResNet(strided="conv3"), "strided is one of conv1, conv2"),
    ],
)
def test_a_wrong_argument_is_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_the_smallest_images_that_errors_name_do_work():
    small = {"channels": (2, 2, 2, 2, 2), "features": 4}
    for model, side in (
        (XNORAlexNet(image_size=63, **small), 63),
        (DoReFaAlexNet(image_size=44, **small), 44),
        (BinaryAlexNet(image_size=59, **small), 59),
        (CNV(image_size=32, width=2, hidden=(4,)), 32),
        (BinaryNet(image_size=8, width=2, hidden=(4,)), 8),
    ):
        assert model(images(3, side)).shape == (2, 10)
