"""Architectures, one per file; without quantizers they are plain networks of torch layers."""

from lowbit.models.airbench import Airbench
from lowbit.models.binary_alexnet import BinaryAlexNet
from lowbit.models.binary_densenet import BinaryDenseNet
from lowbit.models.binarynet import BinaryNet
from lowbit.models.bnext import BNext
from lowbit.models.bottleneck_resnet import BottleneckResNet
from lowbit.models.cnv import CNV
from lowbit.models.conv_net_1d import ConvNet1d
from lowbit.models.dorefa_alexnet import DoReFaAlexNet
from lowbit.models.finn_mlp import FinnMLP
from lowbit.models.lenet import LeNet
from lowbit.models.meliusnet import MeliusNet
from lowbit.models.mlp import MLP
from lowbit.models.mobilenet_v1 import MobileNetV1
from lowbit.models.mobilenet_v2 import MobileNetV2
from lowbit.models.nin import NIN
from lowbit.models.pokebnn import PokeBNN
from lowbit.models.quicknet import QuickNet
from lowbit.models.reactnet import ReActNet
from lowbit.models.real_to_binary import RealToBinaryNet
from lowbit.models.resnet import ResNet
from lowbit.models.resnet18 import ResNet18
from lowbit.models.row_lstm import RowLSTM
from lowbit.models.vgg_small import VGGSmall
from lowbit.models.xnor_alexnet import XNORAlexNet

__all__ = [
    "CNV",
    "MLP",
    "NIN",
    "Airbench",
    "BNext",
    "BinaryAlexNet",
    "BinaryDenseNet",
    "BinaryNet",
    "BottleneckResNet",
    "ConvNet1d",
    "DoReFaAlexNet",
    "FinnMLP",
    "LeNet",
    "MeliusNet",
    "MobileNetV1",
    "MobileNetV2",
    "PokeBNN",
    "QuickNet",
    "ReActNet",
    "RealToBinaryNet",
    "ResNet",
    "ResNet18",
    "RowLSTM",
    "VGGSmall",
    "XNORAlexNet",
]
