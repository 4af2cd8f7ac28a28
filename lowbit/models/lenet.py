"""LeNet-5 in three orders of layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from lowbit.models._blocks import activation as make_activation
from lowbit.models._blocks import chosen
from lowbit.nn import QConv2d, QLinear
from lowbit.quantizers import Spec


class LeNet(nn.Module):
    """LeNet-5, Caffe's sizes, with its second convolution and first linear layer quantized.

    ``order="conv_bn"``, where a quantizer reads the normalisation before it:

        Conv - pool - BN - activation
        QConv - pool - BN - activation
        QLinear - BN - activation
        Linear

    ``order="bn_sign"``, XNOR-Net's blocks, where each quantized layer has a normalisation of
    its own in front and an activation behind (all BN have eps 1e-4, the first no parameters):

        Conv - BN - activation - pool
        BN - QConv - activation - pool
        BN - QLinear - activation
        Linear

    ``order="conv_bn_pool"``, with a nonlinearity before the pooling and all layers quantized, as
    in TWN; the first reads the image, and has the weight quantizer only (all have biases):

        QConv - BN - activation - pool
        QConv - BN - activation - pool
        QLinear - BN - activation
        QLinear

    x (n, in_channels, image_size, image_size) -> (n, num_classes).

    ``channels``     of the two convolutions (20, 50); ``features`` of the hidden layer (500)
    ``kernel_size``  of the convolutions (5), and their ``padding`` (0); with 3 and 1 the
                     network takes images of 8 x 8
    ``activation``   a name of ``ACTIVATIONS``; ``None``: ReLU, but nothing where the next layer
                     reads it through a quantizer of one or two bits
    ``conv_std``     draw the weights of the convolutions from N(0, conv_std²); ``None``:
                     torch's initialisation. The XNOR-Net re-implementation has 0.05.

    0.43 million parameters for MNIST; in TWN's sizes, channels (32, 64) and features 512, 0.58.

    Source: LeCun et al. 1998 in the sizes of Caffe's example; ``bn_sign``: XNOR-Net, Rastegari
    et al. 2016, and ``LeNet_5.py`` of jiecaoyu/XNOR-Net-PyTorch; ``conv_bn_pool``: TWN, Li and
    Liu 2016, and ``lenet_tn.prototxt`` of fengfu-chris/caffe-twns.

    >>> import torch
    >>> model = LeNet(input_quantization="sign", weight_quantization="xnor", order="bn_sign")
    >>> model(torch.randn(2, 1, 28, 28)).shape
    torch.Size([2, 10])
    """

    def __init__(
        self,
        in_channels: int = 1,
        num_classes: int = 10,
        image_size: int = 28,
        channels: Sequence[int] = (20, 50),
        features: int = 500,
        *,
        order: str = "conv_bn",
        kernel_size: int = 5,
        padding: int = 0,
        activation: str | None = None,
        conv_std: float | None = None,
        input_quantization: Spec = None,
        weight_quantization: Spec = None,
        gradient_cancellation_threshold: float | None = None,
        pad_value: float | None = None,
    ) -> None:
        super().__init__()
        chosen("order", order, ("conv_bn", "bn_sign", "conv_bn_pool"))
        first, second = channels
        side = image_size
        for _ in channels:
            side = (side + 2 * padding - kernel_size + 1) // 2
        if side < 1:
            raise ValueError(
                f"image_size={image_size} is too small for two convolutions of kernel_size="
                f"{kernel_size}, padding={padding} and two poolings; try kernel_size=3, padding=1"
            )
        quantization: dict[str, Any] = {
            "input_quantization": input_quantization,
            "weight_quantization": weight_quantization,
            "gradient_cancellation_threshold": gradient_cancellation_threshold,
        }
        # Biases only where no normalisation follows the layer, or as published.
        biased = order != "conv_bn"
        all_quantized = order == "conv_bn_pool"
        conv1: nn.Conv2d
        if all_quantized:
            conv1 = QConv2d(
                in_channels,
                first,
                kernel_size,
                padding=padding,
                weight_quantization=weight_quantization,
            )
        else:
            conv1 = nn.Conv2d(in_channels, first, kernel_size, padding=padding, bias=biased)
        conv2 = QConv2d(
            first,
            second,
            kernel_size,
            padding=padding,
            bias=biased,
            pad_value=pad_value,
            **quantization,
        )
        linear = QLinear(second * side**2, features, bias=biased, **quantization)
        if conv_std is not None:
            for conv in (conv1, conv2):
                nn.init.normal_(conv.weight, std=conv_std)

        if order == "bn_sign":
            self.features = nn.Sequential(
                conv1,
                nn.BatchNorm2d(first, eps=1e-4, affine=False),
                make_activation(activation, first, None),
                nn.MaxPool2d(2),
                nn.BatchNorm2d(first, eps=1e-4),
                conv2,
                make_activation(activation, second, None),
                nn.MaxPool2d(2),
                nn.BatchNorm2d(second, eps=1e-4),
            )
            self.hidden = nn.Sequential(linear, make_activation(activation, features, None))
        elif all_quantized:
            self.features = nn.Sequential(
                conv1,
                nn.BatchNorm2d(first),
                make_activation(activation, first, input_quantization),
                nn.MaxPool2d(2),
                conv2,
                nn.BatchNorm2d(second),
                make_activation(activation, second, input_quantization),
                nn.MaxPool2d(2),
            )
            self.hidden = nn.Sequential(
                linear,
                nn.BatchNorm1d(features),
                make_activation(activation, features, input_quantization),
            )
        else:
            self.features = nn.Sequential(
                conv1,
                nn.MaxPool2d(2),
                nn.BatchNorm2d(first),
                make_activation(activation, first, input_quantization),
                conv2,
                nn.MaxPool2d(2),
                nn.BatchNorm2d(second),
                make_activation(activation, second, input_quantization),
            )
            self.hidden = nn.Sequential(
                linear, nn.BatchNorm1d(features), make_activation(activation, features, None)
            )
        self.fc: nn.Linear = (
            QLinear(features, num_classes, **quantization)
            if all_quantized
            else nn.Linear(features, num_classes)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.hidden(self.features(x).flatten(1)))
