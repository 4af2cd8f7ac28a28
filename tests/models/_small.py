"""Small networks of the families of the papers, each with the shape of an input."""

from lowbit.models import (
    CNV,
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
    XNORAlexNet,
)

IMAGE = (3, 16, 16)
LARGER = (3, 40, 40)
# Through 50 binary layers a rounding of the stem turns signs: other runtimes give other scores.
CHAOTIC = ("bottlenecks",)
FAMILIES = {
    "resnet20_irnet": (
        lambda **q: ResNet(3, 5, depth=8, width=6, downsample="pad", head="bn", **q),
        IMAGE,
    ),
    "resnet20_ttq": (
        lambda **q: ResNet(
            3, 5, depth=8, width=6, order="bn_act", shortcut="block", downsample="pool_pad", **q
        ),
        IMAGE,
    ),
    "resnet20_preact": (
        lambda **q: ResNet(3, 5, depth=8, width=6, order="bn_act", stem_norm=False, **q),
        IMAGE,
    ),
    "resnet34_bireal": (
        lambda **q: ResNet(3, 5, depth=34, width=4, stem="imagenet", downsample="pool_float", **q),
        LARGER,
    ),
    "resnet_e18": (
        lambda **q: ResNet(
            3,
            5,
            width=4,
            stem="imagenet_bn",
            downsample="pool_float",
            stem_activation="relu",
            head="relu",
            **q,
        ),
        LARGER,
    ),
    "reactnet18": (
        lambda **q: ResNet(
            3,
            5,
            width=4,
            downsample="pool_float",
            activation="rprelu",
            stem_activation="identity",
            weight_init="bireal",
            pad_value=0,
            **q,
        ),
        IMAGE,
    ),
    "binary_densenet": (
        lambda **q: BinaryDenseNet(
            3, 5, growth=4, width=8, layers=(2, 1, 2), reductions=(2, 2), **q
        ),
        IMAGE,
    ),
    "binary_densenet_dilated": (
        lambda **q: BinaryDenseNet(
            3,
            5,
            stem="imagenet",
            dilated=True,
            growth=4,
            width=8,
            layers=(1, 1, 1, 1),
            reductions=(2, 2, 2),
            **q,
        ),
        LARGER,
    ),
    "meliusnet": (lambda **q: MeliusNet(3, 5, variant="a", growth=4, width=16, **q), IMAGE),
    "meliusnet_grouped": (
        lambda **q: MeliusNet(3, 5, variant="22", stem="grouped", growth=4, width=16, **q),
        LARGER,
    ),
    "reactnet": (
        lambda **q: ReActNet(3, 5, channels=(8, 16, 16, 32), weight_init="kaiming", **q),
        IMAGE,
    ),
    "bnext": (lambda **q: BNext(3, 5, width=8, blocks=(1, 2), **q), IMAGE),
    "real_to_binary": (lambda **q: RealToBinaryNet(3, 5, 16, width=8, **q), IMAGE),
    "strong_baseline": (
        lambda **q: RealToBinaryNet(3, 5, 40, stem="imagenet", scale="learned", width=8, **q),
        LARGER,
    ),
    "pokebnn": (
        lambda **q: PokeBNN(3, 5, multiplier=0.25, layers=(1, 1, 1, 1), **q),
        LARGER,
    ),
    "xnor_alexnet": (
        lambda **q: XNORAlexNet(3, 5, 64, channels=(8, 12, 8, 8, 8), features=24, **q),
        (3, 64, 64),
    ),
    "dorefa_alexnet": (
        lambda **q: DoReFaAlexNet(3, 5, 48, channels=(8, 12, 8, 8, 8), features=24, **q),
        (3, 48, 48),
    ),
    "binary_alexnet": (
        lambda **q: BinaryAlexNet(3, 5, 60, channels=(8, 12, 8, 8, 8), features=24, **q),
        (3, 60, 60),
    ),
    "nin": (lambda **q: NIN(3, 5, width=12, **q), IMAGE),
    "binarynet": (lambda **q: BinaryNet(3, 5, 16, width=4, hidden=(12, 16), **q), IMAGE),
    "binarynet_larq": (
        lambda **q: BinaryNet(
            3, 5, 16, width=4, hidden=(12,), first_padding=0, norm_scale=False, **q
        ),
        IMAGE,
    ),
    "finn_mlp": (lambda **q: FinnMLP(1, 5, 8, (12, 16), **q), (1, 8, 8)),
    "cnv": (lambda **q: CNV(3, 5, 32, width=4, hidden=(12, 16), **q), (3, 32, 32)),
    "lenet_twn": (
        lambda **q: LeNet(2, 5, 16, (4, 6), 10, order="conv_bn_pool", **q),
        (2, 16, 16),
    ),
    "airbench": (lambda **q: Airbench(3, 5, channels=(24, 32, 32), **q), IMAGE),
    "bottlenecks": (
        lambda **q: BottleneckResNet(3, 5, width=4, strided="conv1", **q),
        LARGER,
    ),
    "mobilenet_v1": (lambda **q: MobileNetV1(3, 5, multiplier=0.125, activation=None, **q), LARGER),
    "mobilenet_v2": (lambda **q: MobileNetV2(3, 5, multiplier=0.1, activation=None, **q), LARGER),
}
