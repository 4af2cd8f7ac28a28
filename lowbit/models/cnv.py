"""FINN's convolutional network."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from torch import Tensor, nn

from lowbit.models._blocks import activation as make_activation
from lowbit.models._tensor_norm import TensorNorm
from lowbit.nn import QActivation, QConv2d, QLinear
from lowbit.quantizers import Spec


class CNV(nn.Module):
    """Six 3 x 3 convolutions without padding and three linear layers, quantized throughout.

        QConv 64 - BN - q       QConv 64 - BN - q - pool
        QConv 128 - BN - q      QConv 128 - BN - q - pool
        QConv 256 - BN - q      QConv 256 - BN - q - flatten
        QLinear 512 - BN - q    QLinear 512 - BN - q    QLinear - TensorNorm

    with q the input quantizer of the next layer, in front of the 2 x 2 max-pooling, which changes
    nothing of a sign. BN have eps 1e-4. The first layer reads the image, in [-1, 1], through
    ``image_quantization``. x (n, in_channels, image_size, image_size) -> (n, num_classes).

    ``width``   channels of the first pair; the next have two and four times as many
    ``hidden``  width of the linear layers
    ``image_quantization``  of the first layer's input: ``None`` leaves it as it is. FINN's has 8
                bits, with steps of 1/128: the pixels of an 8-bit image to half a step
    ``activation``  behind each BN: a name of ``ACTIVATIONS``; ``None``: nothing where the input
                quantizer has one or two bits, else ReLU
    ``image_size``  at least 32

    Weights start uniform in (-1, 1), and are clipped to it in training. 1,542,848 weights for
    CIFAR-10.

    Source: FINN, Umuroglu et al. 2017; ``bnn_pynq/models/CNV.py`` of Brevitas.

    >>> import torch
    >>> q = {"input_quantization": "sign", "weight_quantization": "sign"}
    >>> CNV(width=8, hidden=(16,), **q)(torch.rand(2, 3, 32, 32) * 2 - 1).shape
    torch.Size([2, 10])
    """

    def __init__(
        self,
        in_channels: int = 3,
        num_classes: int = 10,
        image_size: int = 32,
        *,
        width: int = 64,
        hidden: Sequence[int] = (512, 512),
        image_quantization: Spec = None,
        activation: str | None = None,
        input_quantization: Spec = None,
        weight_quantization: Spec = None,
        gradient_cancellation_threshold: float | None = None,
    ) -> None:
        super().__init__()
        side = ((image_size - 4) // 2 - 4) // 2 - 4
        if side < 1:
            raise ValueError(
                f"image_size={image_size} is too small for six convolutions without padding and "
                "two poolings; it must be at least 32"
            )
        quantization: dict[str, Any] = {
            "input_quantization": input_quantization,
            "weight_quantization": weight_quantization,
            "gradient_cancellation_threshold": gradient_cancellation_threshold,
        }

        def nonlinearity(size: int) -> nn.Module:
            return make_activation(activation, size, input_quantization)

        first = QConv2d(in_channels, width, 3, bias=False, weight_quantization=weight_quantization)
        layers: list[nn.Module] = []
        if image_quantization is not None:
            layers.append(QActivation(image_quantization, channels=in_channels))
        layers += [first, nn.BatchNorm2d(width, eps=1e-4), nonlinearity(width)]
        widths = [width, width, 2 * width, 2 * width, 4 * width, 4 * width]
        for index, (before, after) in enumerate(pairwise(widths)):
            layers += [
                QConv2d(before, after, 3, bias=False, **quantization),
                nn.BatchNorm2d(after, eps=1e-4),
                nonlinearity(after),
            ]
            layers += [nn.MaxPool2d(2)] if index in (0, 2) else []
        self.features = nn.Sequential(*layers)
        layers = []
        before = widths[-1] * side**2
        for after in hidden:
            layers += [
                QLinear(before, after, bias=False, **quantization),
                nn.BatchNorm1d(after, eps=1e-4),
                nonlinearity(after),
            ]
            before = after
        last = QLinear(before, num_classes, bias=False, **quantization)
        self.classifier = nn.Sequential(*layers, last, TensorNorm())
        for module in self.modules():
            if isinstance(module, QConv2d | QLinear) and weight_quantization is not None:
                nn.init.uniform_(module.weight, -1, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(x).flatten(1))
