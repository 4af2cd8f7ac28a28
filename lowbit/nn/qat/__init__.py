"""Layers for quantization-aware training: their weight is rounded in every forward.

Names, arguments and state dicts are those of torch.ao.nn.qat and torch.ao.nn.intrinsic.qat; what
those take and return as containers of intrinsic modules are plain ``nn.Sequential`` here.
"""

from lowbit.nn.qat._norm import (
    freeze_bn_stats,
    update_bn_stats,
)
from lowbit.nn.qat.conv import (
    Conv1d,
    Conv2d,
    Conv3d,
    ConvReLU1d,
    ConvReLU2d,
    ConvReLU3d,
)
from lowbit.nn.qat.conv_bn import (
    ConvBn1d,
    ConvBn2d,
    ConvBn3d,
    ConvBnReLU1d,
    ConvBnReLU2d,
    ConvBnReLU3d,
)
from lowbit.nn.qat.embedding import (
    Embedding,
    EmbeddingBag,
)
from lowbit.nn.qat.linear import (
    Linear,
    LinearReLU,
)
from lowbit.nn.qat.linear_bn import (
    LinearBn1d,
)

__all__ = [
    "Conv1d",
    "Conv2d",
    "Conv3d",
    "ConvBn1d",
    "ConvBn2d",
    "ConvBn3d",
    "ConvBnReLU1d",
    "ConvBnReLU2d",
    "ConvBnReLU3d",
    "ConvReLU1d",
    "ConvReLU2d",
    "ConvReLU3d",
    "Embedding",
    "EmbeddingBag",
    "Linear",
    "LinearBn1d",
    "LinearReLU",
    "freeze_bn_stats",
    "update_bn_stats",
]
