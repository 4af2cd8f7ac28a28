"""Parameters and multiply-adds of every model beside the published ones.

Where ours differ, the test says by what and why, and asserts the difference.

larq: ``tests/snapshots/model_summaries/`` of github.com/larq/zoo, for an image of 224 x 224 and
      1000 classes. Its columns are 1-bit and 32-bit numbers, 1-bit (or 2-bit) and 32-bit MACs; a
      batch norm counts as two numbers a channel, with or without a learned factor.
"""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn

import lowbit
from lowbit.models import (
    CNV,
    MLP,
    NIN,
    Airbench,
    BinaryAlexNet,
    BinaryDenseNet,
    BinaryNet,
    BNext,
    BottleneckResNet,
    DoReFaAlexNet,
    FinnMLP,
    LeNet,
    MeliusNet,
    MobileNetV1,
    MobileNetV2,
    PokeBNN,
    ReActNet,
    RealToBinaryNet,
    ResNet,
    VGGSmall,
    XNORAlexNet,
)
from lowbit.models.pokebnn import PokeConv, Shortcut
from lowbit.nn import DPReLU
from tests.models._counts import MIB, Counts, count

# Inputs and outputs of the 13 pairs of MobileNetV1's layers.
WIDTHS = (32, 64, 128, 128, 256, 256, 512, 512, 512, 512, 512, 512, 1024, 1024)
PAIRS = tuple(pairwise(WIDTHS))

SIGN = {"input_quantization": "ste_sign", "weight_quantization": "sign"}
REACT = {"input_quantization": "rsign", "weight_quantization": "bireal_weight"}
DOREFA = {
    "input_quantization": {"name": "dorefa_input", "bits": 2},
    "weight_quantization": "dorefa_weight",
}
IMAGENET, CIFAR, MNIST = (3, 224, 224), (3, 32, 32), (1, 28, 28)


def counted(make, shape, *arguments, **options) -> Counts:
    with torch.device("meta"):
        return count(make(*arguments, **options), shape)


def imagenet(make, **options) -> Counts:
    return counted(make, IMAGENET, num_classes=1000, **options)


BIREAL = {"stem": "imagenet", "downsample": "pool_float"}
RESNET_E = {**BIREAL, "stem": "imagenet_bn", "stem_activation": "relu", "head": "relu"}
REACT18 = {**BIREAL, "activation": "rprelu", "stem_activation": "identity"}


@pytest.mark.parametrize(
    ("make", "options", "published"),
    [
        (ResNet, RESNET_E, (10_985_472, 704_168, 1_676_279_808, 137_793_536)),
        (ResNet, BIREAL, (10_985_472, 704_040, 1_676_279_808, 137_793_536)),
        (
            BinaryDenseNet,
            {"depth": 28, "stem": "imagenet"},
            (4_202_496, 929_000, 3_587_383_296, 202_484_224),
        ),
        (
            BinaryDenseNet,
            {"depth": 37, "stem": "imagenet"},
            (7_593_984, 1_108_264, 4_506_808_320, 199_738_368),
        ),
        (
            BinaryDenseNet,
            {"depth": 37, "stem": "imagenet", "dilated": True},
            (7_593_984, 1_108_264, 7_774_470_144, 452_625_408),
        ),
        (
            BinaryDenseNet,
            {"depth": 45, "stem": "imagenet"},
            (12_349_440, 1_540_072, 6_430_556_160, 244_103_424),
        ),
        (
            MeliusNet,
            {"variant": "22", "stem": "grouped"},
            (6_119_424, 825_160, 4_624_220_160, 136_388_608),
        ),
        (
            RealToBinaryNet,
            {"stem": "imagenet"},
            (10_985_472, 1_001_448, 1_676_279_808, 138_087_936),
        ),
    ],
    ids=["ResNetE18", "BiReal18", "BDN28", "BDN37", "BDN37d", "BDN45", "Melius22", "R2B"],
)
def test_larqs_summaries(make, options, published):
    assert imagenet(make, **SIGN, **options) == Counts(*published)


def test_binary_densenet_28_has_5131496_numbers():
    assert imagenet(BinaryDenseNet, **SIGN, stem="imagenet").numbers == 5_131_496


# "Model Size" and "Flops" of CurrentBestResults.md, wiki of BMXNet 2 (hpi-xnor): MiB with one bit
# for a binary weight; float MACs plus a 64th of the binary ones. The stem is "grouped" but where
# said. Their Flops leave the last layer out, and sizes are rounded or cut to the digits shown.
@pytest.mark.parametrize(
    ("make", "options", "mib", "flops"),
    [
        (ResNet, RESNET_E, 4.0, 1.63e8),
        (ResNet, {**RESNET_E, "depth": 34}, 5.23, 1.92e8),
        (BinaryDenseNet, {"depth": 28, "stem": "imagenet"}, 4.04, 2.58e8),
        (BinaryDenseNet, {"depth": 28}, 4.03, 2.09e8),
        (BinaryDenseNet, {"depth": 37, "stem": "imagenet"}, 5.13, 2.70e8),
        (BinaryDenseNet, {"depth": 37}, 5.12, 2.20e8),
        (MeliusNet, {"variant": "22", "stem": "imagenet"}, 3.89, 2.58e8),
        (MeliusNet, {"variant": "22"}, 3.88, 2.08e8),
        (MeliusNet, {"variant": "29", "stem": "imagenet"}, 5.08, 2.64e8),
        (MeliusNet, {"variant": "29"}, 5.07, 2.14e8),
        (MeliusNet, {"variant": "42"}, 10.1, 3.25e8),
        (MeliusNet, {"variant": "59"}, 17.39, 5.32e8),
        (MeliusNet, {"variant": "a"}, 4.05, 1.63e8),
        (MeliusNet, {"variant": "b"}, 5.0, 1.96e8),
        (MeliusNet, {"variant": "c"}, 4.46, 1.50e8),
    ],
)
def test_bmxnets_sizes_and_flops(make, options, mib, flops):
    with torch.device("meta"):
        model = make(num_classes=1000, **SIGN, **{"stem": "grouped", **options})
    ours = count(model, IMAGENET)
    digits = 1 if mib in (4.0, 10.1, 5.0) else 2
    assert round(ours.mib, digits) == mib
    assert round((ours.operations - model.fc.weight.numel()) / 1e8, 2) == round(flops / 1e8, 2)


def test_reactnets_readme():
    """The "FLOPs" of github.com/liuzechun/ReActNet: A 0.87e8, Bi-Real and ReActNet-18 1.63e8.

    The paper splits A's into 4.82e9 binary and 0.12e8 real. ReActNet-18's leave out the last
    layer; A's count it.
    """
    a = imagenet(ReActNet, **REACT)
    assert round(a.operations / 1e8, 2) == 0.87
    assert round(a.binary_macs / 1e9, 2) == 4.82
    assert round(a.real_macs / 1e8, 2) == 0.12
    for options in ({**BIREAL, **SIGN}, {**REACT18, **REACT}):
        ours = imagenet(ResNet, **options)
        assert round((ours.operations - 512_000) / 1e8, 2) == 1.63


def bnexts_layer(channels, kernel, side, multiplies):
    """Binary and real numbers, binary and real multiply-adds of one ``Recoupled``.

    Real: a shift, two norms, a share and one or two PReLUs of each channel; the gate.
    """
    weights, between = kernel**2 * channels**2, channels // 8
    gate = 2 * channels * between
    real = (1 + 4 + 1 + 1 + multiplies) * channels + gate + between + channels
    return np.array([weights, real, weights * side**2, gate])


@pytest.mark.parametrize(
    ("size", "unused", "published"),
    [
        ("tiny", 8_960, 30_862_236),
        ("small", 13_440, 68_594_614),
        ("middle", 22_080, 134_501_974),
        ("large", 31_296, 184_159_318),
        ("super", 41_728, 326_546_640),
    ],
)
def test_bnext(size, unused, published):
    """Parameters of src/bnext.py of hpi-xnor/BNext, counted by making its networks.

    It has PReLUs that nothing calls: of the stem, and of the inputs of all convolutions that do not
    multiply. Below, the sum over its layers; each block has the index ``i`` that it has there.
    """
    ours = imagenet(BNext, size=size, **REACT)
    width = {"tiny": 32, "super": 64}.get(size, 48)
    blocks = {"tiny": (2, 2, 6, 2), "small": (2, 2, 6, 2), "middle": (4, 4, 8, 4)}
    counts = blocks.get(size, (4, 4, 16, 4))
    widths = [width, 2 * width]
    for stage, number in enumerate(counts, start=2):
        widths += [width * 2**stage] * number
    total = np.array([0, 27 * width + 2 * width, 0, 27 * width * 112**2])
    side, idle = 112, width
    for i in range(1, len(widths)):
        before, after = widths[i - 1 : i + 1]
        multiplies, points = i % 2 == 0, after // before
        side //= 2 if points == 2 and i > 1 else 1
        total += bnexts_layer(before, 3, side, multiplies)
        total += points * bnexts_layer(before, 1, side, False)
        idle += before * (points + (not multiplies))
    last = widths[-1]
    total += [0, last + 1000 * last + 1000, 0, 1000 * last]
    assert ours == Counts(*total.tolist())
    assert idle == unused
    assert ours.numbers == published - unused


def test_the_published_bnext_l_is_super():
    """Issue 4 of hpi-xnor/BNext: 106.1 MB in the paper, a checkpoint of 1246.96 MB.

    The checkpoint has the unused PReLUs, running means and variances, and a temperature of each
    quantizer and counters, which are some kB.
    """
    ours = imagenet(BNext, size="super", **REACT)
    assert math.floor(10 * ours.mib) / 10 == 106.1
    with torch.device("meta"):
        model = BNext(num_classes=1000, size="super", **REACT)
    norms = sum(m.num_features for m in model.modules() if isinstance(m, nn.BatchNorm2d))
    assert 4 * (ours.numbers + 41_728 + 2 * norms) / MIB == pytest.approx(1246.96, abs=1)


def test_reactnet_18_adds_four_numbers_a_channel_to_bireal():
    """A shift for each input of a convolution, and slope and two shifts for each output."""
    inputs = 64 * 5 + 128 * 4 + 256 * 4 + 512 * 3
    outputs = 4 * (64 + 128 + 256 + 512)
    ours = imagenet(ResNet, **REACT18, **REACT)
    assert ours.numbers == 11_689_512 + inputs + 3 * outputs


@pytest.mark.parametrize("depth", [18, 34])
def test_resnets_are_as_large_as_torchvisions(depth):
    models = pytest.importorskip("torchvision.models")
    published = getattr(models, f"ResNet{depth}_Weights").IMAGENET1K_V1.meta
    ours = imagenet(ResNet, depth=depth, stem="imagenet", shortcut="block")
    assert ours.numbers == published["num_params"]
    assert round(ours.real_macs / 1e9, 3) == published["_ops"]


def test_resnet20_has_the_published_quarter_of_a_million():
    """0.27 M in the table at the head of IR-Net's ResNet20/1w1a/resnet.py, after He et al. 2016.

    That file's batch norm before the last layer has 128 of them.
    """
    plain = counted(ResNet, CIFAR, depth=20, downsample="pad", **SIGN)
    assert round(plain.numbers / 1e6, 2) == 0.27
    assert round((plain.binary_macs + plain.real_macs) / 1e6, 1) == 40.6
    irnet = counted(ResNet, CIFAR, depth=20, downsample="pad", head="bn", **SIGN)
    assert irnet.numbers == plain.numbers + 128


def test_pre_activation_resnet20_has_one_more_norm_than_its_blocks_need():
    """The norm of the last block's end takes the place of none; both stems have as many numbers."""
    with_norm = counted(ResNet, CIFAR, depth=20, downsample="pool_pad", order="bn_act", **SIGN)
    without = counted(
        ResNet, CIFAR, depth=20, downsample="pool_pad", order="bn_act", stem_norm=False, **SIGN
    )
    assert with_norm == without
    # Norms of width 16: stem and 5; 32: one reads 16 channels; 64: likewise; the end 64.
    norms = 2 * (16 * 7 + 32 * 6 + 64 * 6)
    assert with_norm.numbers == 267_264 + 3 * 16 * 9 + 64 * 10 + 10 + norms


def test_binary_alexnet():
    """larq's BinaryAlexNet; it counts the binary weights of the first layer, 23,232, as 1-bit."""
    ours = imagenet(BinaryAlexNet, **SIGN)
    assert ours.binary + 23_232 == 61_827_776
    assert ours.real - 23_232 == 20_944
    assert (ours.binary_macs, ours.real_macs) == (768_512_000, 72_855_552)


def test_xnor_alexnet():
    """larq's XNORNet, and the two differences of the authors' alexnetxnor.lua, which ours follows:

    all layers have biases; and the first convolution is padded by 2 to 55 x 55 outputs, where
    larq's SAME padding has 56 x 56.
    """
    ours = imagenet(XNORAlexNet, **SIGN)
    biases = 96 + 256 + 384 + 384 + 256 + 4096 + 4096 + 1000
    assert (ours.binary, ours.real - biases) == (58_236_928, 4_150_176)
    assert ours.binary_macs == 1_025_744_896
    assert ours.real_macs + (56**2 - 55**2) * 34_848 == 113_379_328


def test_dorefa_alexnet():
    """larq's DoReFaNet has no groups, and a bias in the first layer, 96 numbers.

    The authors' code splits three convolutions in two, which halves their weights.
    """
    larq = imagenet(DoReFaAlexNet, groups=1, **DOREFA)
    assert (larq.binary, larq.real + 96) == (58_236_928, 4_157_512)
    assert (larq.binary_macs, larq.real_macs) == (2_924_609_536, 125_028_352)
    ours = imagenet(DoReFaAlexNet, **DOREFA)
    assert larq.binary - ours.binary == (614_400 + 1_327_104 + 884_736) // 2


def test_binarynet():
    """larq's tutorial binarynet_cifar10.ipynb, which counts the first layer's 3,456 as 1-bit.

    It is without padding in the first layer; with it, as in the papers, the 14.0 M parameters and
    617 M multiply-adds that BinaryConnect's network has.
    """
    larq = counted(BinaryNet, CIFAR, first_padding=0, norm_scale=False, **SIGN)
    assert (larq.binary + 3_456, larq.real - 3_456) == (10_352_000, 7_700)
    assert (larq.binary_macs, larq.real_macs) == (510_961_664, 3_110_400)
    paper = counted(BinaryNet, CIFAR, **SIGN)
    assert round(paper.numbers / 1e6, 1) == 14.0
    assert round((paper.binary_macs + paper.real_macs) / 1e6) == 617


def test_finns_networks():
    """Weights and products of FINN-TFC_W2A2 and FINN-CNV_W2A2, test_inference_cost.py of qonnx.

    CNV's first layer reads 8-bit images: 1,555,200 products, and 1,728 of the weights.
    """
    tfc = counted(FinnMLP, MNIST, dropout=0, **SIGN)
    assert (tfc.binary, tfc.binary_macs, tfc.real_macs) == (59_008, 59_008, 0)
    cnv = counted(CNV, CIFAR, **SIGN)
    assert (cnv.binary + 1_728, cnv.binary_macs) == (1_542_848, 57_906_176)
    assert cnv.real_macs == 1_555_200


@pytest.mark.parametrize(("width", "weights"), [(256, 334_336), (1024, 2_910_208)])
def test_sfc_and_lfc_have_the_weights_of_their_widths(width, weights):
    """784 w + 2 w^2 + 10 w, two numbers of a norm for each hidden unit, two of the last."""
    ours = counted(FinnMLP, MNIST, hidden=(width,) * 3, dropout=0, **SIGN)
    assert ours.binary == ours.binary_macs == weights == 784 * width + 2 * width**2 + 10 * width
    assert ours.real == 2 * 3 * width + 2


def test_xnors_networks_for_small_images():
    """Sums over LeNet_5.py and nin.py of jiecaoyu/XNOR-Net-PyTorch, layer by layer."""
    lenet = counted(LeNet, MNIST, order="bn_sign", **SIGN)
    layers = (25 * 20 + 20) + (20 * 25 * 50 + 50) + (800 * 500 + 500) + (500 * 10 + 10)
    assert lenet.numbers == layers + 2 * (20 + 20 + 50)
    nin = counted(NIN, CIFAR, dropout=0, **SIGN)
    sizes = [(192, 160, 1), (160, 96, 1), (96, 192, 5), (192, 192, 1), (192, 192, 1)]
    sizes += [(192, 192, 3), (192, 192, 1)]
    assert nin.binary == sum(before * after * kernel**2 for before, after, kernel in sizes)
    biases = 192 + sum(after for _, after, _ in sizes) + 10
    norms = 2 * (192 + sum(before for before, _, _ in sizes) + 192)
    assert nin.real == 3 * 25 * 192 + 192 * 10 + biases + norms


def test_twns_lenet():
    """32C5 - 64C5 - 512FC of lenet_tn.prototxt, fengfu-chris/caffe-twns, with biases and norms."""
    ours = counted(LeNet, MNIST, channels=(32, 64), features=512, order="conv_bn_pool", **SIGN)
    weights = 25 * 32 + 32 * 25 * 64 + 1024 * 512 + 512 * 10
    assert ours.numbers == weights + (32 + 64 + 512 + 10) + 2 * (32 + 64 + 512)
    assert ours.binary_macs + ours.real_macs == 24**2 * 800 + 8**2 * 51_200 + 524_288 + 5_120


@pytest.mark.parametrize(("width", "millions"), [(1024, 2.9), (2048, 10.0), (4096, 36.8)])
def test_the_perceptrons_of_binaryconnect_and_bnn(width, millions):
    ours = counted(MLP, MNIST, hidden=(width,) * 3, binary_ends=True, **SIGN)
    assert round(ours.numbers / 1e6, 1) == millions
    assert ours.binary_macs + ours.real_macs == 784 * width + 2 * width**2 + 10 * width


def test_vgg_small():
    """4.7 M parameters, 608 M multiply-adds: the sum over vgg_small of IR-Net's repository."""
    ours = counted(VGGSmall, CIFAR, **SIGN)
    assert round(ours.numbers / 1e6, 1) == 4.7
    assert round((ours.binary_macs + ours.real_macs) / 1e6) == 608


@pytest.mark.parametrize(
    ("multiplier", "side", "weights", "macs"),
    [(1.0, 224, 3_185_088, 567_716_352), (0.75, 128, 1_800_144, 106_002_432)],
)
def test_mobilenet_v1(multiplier, side, weights, macs):
    """Totals of the convolutions at the head of slim's mobilenet_v1.py, without norms and ends.

    With a norm for each of the channels and the last layer it has 4,231,976 numbers. Slim's
    mobilenet_v1.md prints 4.24 million, of 1001 classes; these have 4,233,001.
    """
    ours = counted(MobileNetV1, (3, side, side), num_classes=1000, multiplier=multiplier)
    channels = multiplier * (32 + sum(before + after for before, after in PAIRS))
    last = multiplier * 1024 * 1000
    assert ours.numbers - 2 * channels - last - 1000 == weights
    assert ours.real_macs - last == macs


def test_mobilenet_v2_is_as_large_as_torchvisions():
    models = pytest.importorskip("torchvision.models")
    published = models.MobileNet_V2_Weights.IMAGENET1K_V1.meta
    ours = imagenet(MobileNetV2)
    assert ours.numbers == published["num_params"] == 3_504_872
    assert round(ours.real_macs / 1e9, 3) == published["_ops"]


@pytest.mark.parametrize("depth", [50, 101, 152])
def test_bottleneck_networks_are_as_large_as_torchvisions(depth):
    models = pytest.importorskip("torchvision.models")
    published = models.get_model_weights(f"resnet{depth}").IMAGENET1K_V1.meta
    ours = imagenet(BottleneckResNet, depth=depth)
    assert ours.numbers == published["num_params"]
    assert round(ours.real_macs / 1e9, 3) == published["_ops"]


def test_resnet50_of_he_et_al_has_fewer_multiply_adds():
    assert round(imagenet(BottleneckResNet, strided="conv1").real_macs / 1e9, 2) == 3.86


def test_airbench_has_the_counts_of_its_repository():
    """Weights and biases of airbench94: 24 x 12 + 24, 3 x 3 convolutions, shifts, 256 x 10."""
    found = counted(Airbench, (3, 32, 32))
    pairs = ((24, 64), (64, 64), (64, 256), (256, 256), (256, 256), (256, 256))
    convolutions = sum(9 * a * b for a, b in pairs)
    shifts = 2 * (64 + 256 + 256)
    model = Airbench()
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert trained == 24 + convolutions + shifts + 2560
    assert round(convolutions / 1e6, 2) == 1.97
    places = (31**2, 15**2, 15**2, 7**2, 7**2, 3**2)
    macs = sum(9 * a * b * n for (a, b), n in zip(pairs, places, strict=True))
    assert found.real_macs == macs + 288 * 31**2 + 2560
    assert round(found.real_macs / 1e6) == 118


def bits(count: int, **options) -> dict:
    return {"name": "int_k", "bits": count, **options}


POKE = {
    **SIGN,
    **{f"end_{role}_quantization": bits(8) for role in ("input", "weight")},
    **{f"se_{role}_quantization": bits(4) for role in ("input", "hidden", "weight")},
}


def poke_convs(multiplier: float = 1.0) -> list[tuple[int, int, int]]:
    """Inputs, outputs and kernel size of each."""
    found, before = [], 64
    for width, blocks in ((64, 3), (128, 4), (256, 6), (512, 3)):
        c = int(width * multiplier)
        for _ in range(blocks):
            found += [(before, c, 1), (c, c, 3), (c, 4 * c, 1)]
            before = 4 * c
    return found


def aces(model: PokeBNN) -> dict[str, int]:
    """The paper's cost of each layer: multiply-adds times the bits of input and of weight."""
    rows = [row for row in lowbit.summary(model, IMAGENET) if row.weights]
    return {row.name: row.macs.total * row.input_bits * row.weight_bits for row in rows}


@pytest.mark.parametrize("multiplier", [0.5, 0.75, 1.0, 1.5])
def test_pokebnns_parameters_by_hand(multiplier):
    """A norm has two numbers a channel and a DPReLU four; a squeeze-and-excite has biases."""
    binary = sum(i * o * k * k for i, o, k in poke_convs(multiplier))
    scales = sum(i * (i // 8) + i // 8 + (i // 8) * o + o for i, o, _ in poke_convs(multiplier))
    stem = 4 * 4 * 3 * 32 + 3 * 3 * 64 + 6 * (32 + 64)
    last = 1000 * int(512 * multiplier) * 4 + 1000
    ours = imagenet(PokeBNN, multiplier=multiplier, **SIGN)
    assert ours.binary == binary
    assert ours.real == scales + 8 * sum(o for _, o, _ in poke_convs(multiplier)) + stem + last
    if multiplier == 1:
        assert (ours.binary, ours.numbers) == (20_676_608, 26_567_424)


def test_pokebnns_sizes_are_those_of_its_authors_test():
    """The numbers of ``test_size_stats`` in google/aqt's jax_legacy pokebnn_test.py, of 1.0x."""
    with torch.device("meta"):
        model = PokeBNN(num_classes=1000, **POKE)
    ace = aces(model)
    found = dict.fromkeys(("norm", "dprelu", "local", "around", "pooled", "shrunk", "read"), 0)
    hidden = []

    def note(key, value=None):
        def hook(_, inputs, output):
            found[key] += (output if value is None else value(inputs)).numel()

        return hook

    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.register_forward_hook(note("norm"))
        if isinstance(module, DPReLU):
            module.register_forward_hook(note("dprelu"))
        if isinstance(module, Shortcut) and module.before > module.after:
            module.register_forward_hook(note("shrunk", lambda inputs: inputs[0]))
        if isinstance(module, nn.AvgPool2d):
            module.register_forward_hook(note("pooled"))
        if isinstance(module, PokeConv):
            module.local.register_forward_hook(note("local"))
            module.se.register_forward_hook(note("read", lambda inputs: inputs[1]))
            hidden.append((module.se.reduce.in_features, module.se.reduce.out_features))
            if module.around is not None:
                module.around.register_forward_hook(note("around"))
    model(torch.empty(1, *IMAGENET, device="meta"))
    assert ace.pop("fc") == 131_072_000
    assert sum(ace.values()) == 4_091_469_824
    assert found == {
        "norm": 17_912_832,
        "dprelu": 9_106_944,
        "local": 8_805_888,
        "around": 5_519_360,
        "pooled": 7_902_720 // 9,
        "shrunk": 5_419_008,
        "read": 8_906_240,
    }
    assert [sum(column) for column in zip(*hidden, strict=True)] == [20_672, 2_584]


def test_the_pokebnn_of_2_6_ace_has_three_quarters_of_the_channels():
    """The abstract's 2.6 ACE, of which its 70.5 % is; no multiplier here has its 7.8 (75.6 %)."""
    found = {}
    for multiplier in (0.75, 1.25, 1.5):
        with torch.device("meta"):
            model = PokeBNN(num_classes=1000, multiplier=multiplier, **POKE)
        found[multiplier] = round(sum(aces(model).values()) / 1e9, 1)
    assert found == {0.75: 2.6, 1.25: 6.3, 1.5: 8.9}


def test_counting_sees_a_batch_norm_without_parameters():
    model = nn.Sequential(nn.Conv2d(3, 4, 1, bias=False), nn.BatchNorm2d(4, affine=False))
    assert count(model, (3, 2, 2)) == Counts(0, 12 + 8, 0, 48)
