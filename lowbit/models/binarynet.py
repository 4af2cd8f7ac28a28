"""The VGG of BinaryConnect and BNN, quantized from the first layer to the last."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from torch import Tensor, nn

from lowbit.models._blocks import activation as make_activation
from lowbit.nn import QConv2d, QLinear
from lowbit.quantizers import Spec


class BinaryNet(nn.Module):
    """Six 3 x 3 convolutions and linear layers, each followed by a batch norm.

        QConv 128 - BN      QConv 128 - pool - BN
        QConv 256 - BN      QConv 256 - pool - BN
        QConv 512 - BN      QConv 512 - pool - BN - flatten
        QLinear 1024 - BN   QLinear 1024 - BN       QLinear - BN

    A nonlinearity stands behind each BN but the last, and the poolings are 2 x 2 maxima. The
    first layer reads the image as it is, with the weight quantizer only.
    x (n, in_channels, image_size, image_size) -> (n, num_classes).

    ``width``       channels of the first pair (SVHN: 64); the next have two and four times as many
    ``hidden``      widths of the linear layers between; TWN's VGG-7 has (1024,)
    ``first_padding``  of the first convolution: 1; larq's tutorial has 0
    ``activation``  a name of ``ACTIVATIONS``; ``None``: nothing where the input quantizer has one
                    or two bits (BNN), else ReLU (BinaryConnect)
    ``norm_scale``  False: the factors of the batch norms stay 1 (Bop, larq's tutorial)
    ``norm_eps``, ``norm_momentum``  of the batch norms: 1e-4 and 0.1; larq's tutorial has 1e-3
                    and 0.001
    ``pad_value``   around quantized inputs; 0 as published

    14.03 million parameters for CIFAR-10, 6.40 million with ``width=64``.

    Source: BinaryConnect, Courbariaux et al. 2015; BNN, Hubara et al. 2016.

    >>> import torch
    >>> q = {"input_quantization": "sign", "weight_quantization": "sign"}
    >>> BinaryNet(image_size=16, width=8, hidden=(16,), **q)(torch.randn(2, 3, 16, 16)).shape
    torch.Size([2, 10])
    """

    def __init__(
        self,
        in_channels: int = 3,
        num_classes: int = 10,
        image_size: int = 32,
        *,
        width: int = 128,
        hidden: Sequence[int] = (1024, 1024),
        first_padding: int = 1,
        activation: str | None = None,
        norm_scale: bool = True,
        norm_eps: float = 1e-4,
        norm_momentum: float = 0.1,
        input_quantization: Spec = None,
        weight_quantization: Spec = None,
        gradient_cancellation_threshold: float | None = None,
        pad_value: float | None = 0,
    ) -> None:
        super().__init__()
        side = (image_size + 2 * first_padding - 2) // 8
        if side < 1:
            raise ValueError(
                f"image_size={image_size} with first_padding={first_padding} is too small for "
                "three halvings"
            )
        quantization: dict[str, Any] = {
            "input_quantization": input_quantization,
            "weight_quantization": weight_quantization,
            "gradient_cancellation_threshold": gradient_cancellation_threshold,
        }

        def norm(kind: type[nn.BatchNorm1d | nn.BatchNorm2d], size: int) -> nn.Module:
            made = kind(size, eps=norm_eps, momentum=norm_momentum)
            made.weight.requires_grad_(norm_scale)
            return made

        def nonlinearity(size: int) -> nn.Module:
            return make_activation(activation, size, input_quantization)

        widths = [width, width, 2 * width, 2 * width, 4 * width, 4 * width]
        first = QConv2d(
            in_channels,
            width,
            3,
            padding=first_padding,
            bias=False,
            weight_quantization=weight_quantization,
        )
        layers: list[nn.Module] = [first, norm(nn.BatchNorm2d, width), nonlinearity(width)]
        for index, (before, after) in enumerate(pairwise(widths)):
            layers.append(
                QConv2d(
                    before, after, 3, padding=1, bias=False, pad_value=pad_value, **quantization
                )
            )
            layers += [nn.MaxPool2d(2)] if index % 2 == 0 else []
            layers += [norm(nn.BatchNorm2d, after), nonlinearity(after)]
        self.features = nn.Sequential(*layers)

        sizes = [widths[-1] * side**2, *hidden, num_classes]
        layers = []
        for before, after in pairwise(sizes):
            layers += [] if not layers else [nonlinearity(before)]
            layers += [
                QLinear(before, after, bias=False, **quantization),
                norm(nn.BatchNorm1d, after),
            ]
        self.classifier = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(x).flatten(1))
