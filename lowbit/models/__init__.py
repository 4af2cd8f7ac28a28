"""Architectures, one per file; without quantizers they are plain networks of torch layers."""

from lowbit.models.lenet import LeNet
from lowbit.models.mlp import MLP
from lowbit.models.quicknet import QuickNet
from lowbit.models.resnet18 import ResNet18
from lowbit.models.row_lstm import RowLSTM
from lowbit.models.vgg_small import VGGSmall

__all__ = ["MLP", "LeNet", "QuickNet", "ResNet18", "RowLSTM", "VGGSmall"]
