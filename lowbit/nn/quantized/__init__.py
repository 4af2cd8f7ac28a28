"""Int8 layers on plain integer tensors: the modules of torch.ao.nn.quantized.

They take and return ``lowbit.qtensor.QTensor``; ``Quantize`` and ``DeQuantize`` stand at the two
ends of a model. Names and arguments are torch's. Weights are int8 with one scale or one for each
output channel, activations uint8 (int8 as well) with one scale. ``functional`` has the functions.
"""

from lowbit.nn.quantized import functional
from lowbit.nn.quantized._legacy import from_legacy_state_dict
from lowbit.nn.quantized.activation import (
    ELU,
    Hardswish,
    LeakyReLU,
    PReLU,
    ReLU6,
    Sigmoid,
    Softmax,
)
from lowbit.nn.quantized.batchnorm import BatchNorm2d, BatchNorm3d
from lowbit.nn.quantized.conv import (
    Conv1d,
    Conv2d,
    Conv3d,
    ConvAdd2d,
    ConvAddReLU2d,
    ConvReLU1d,
    ConvReLU2d,
    ConvReLU3d,
)
from lowbit.nn.quantized.conv_transpose import ConvTranspose1d, ConvTranspose2d, ConvTranspose3d
from lowbit.nn.quantized.dropout import Dropout
from lowbit.nn.quantized.embedding import Embedding
from lowbit.nn.quantized.embedding_bag import EmbeddingBag
from lowbit.nn.quantized.float_functional import FloatFunctional, FXFloatFunctional, QFunctional
from lowbit.nn.quantized.linear import Linear, LinearReLU
from lowbit.nn.quantized.normalization import (
    GroupNorm,
    InstanceNorm1d,
    InstanceNorm2d,
    InstanceNorm3d,
    LayerNorm,
)
from lowbit.nn.quantized.operations import Add, AddReLU, Cat, Mul
from lowbit.nn.quantized.pool import MaxPool2d
from lowbit.nn.quantized.quantize import DeQuantize, Quantize

__all__ = [
    "ELU",
    "Add",
    "AddReLU",
    "BatchNorm2d",
    "BatchNorm3d",
    "Cat",
    "Conv1d",
    "Conv2d",
    "Conv3d",
    "ConvAdd2d",
    "ConvAddReLU2d",
    "ConvReLU1d",
    "ConvReLU2d",
    "ConvReLU3d",
    "ConvTranspose1d",
    "ConvTranspose2d",
    "ConvTranspose3d",
    "DeQuantize",
    "Dropout",
    "Embedding",
    "EmbeddingBag",
    "FXFloatFunctional",
    "FloatFunctional",
    "GroupNorm",
    "Hardswish",
    "InstanceNorm1d",
    "InstanceNorm2d",
    "InstanceNorm3d",
    "LayerNorm",
    "LeakyReLU",
    "Linear",
    "LinearReLU",
    "MaxPool2d",
    "Mul",
    "PReLU",
    "QFunctional",
    "Quantize",
    "ReLU6",
    "Sigmoid",
    "Softmax",
    "from_legacy_state_dict",
    "functional",
]
