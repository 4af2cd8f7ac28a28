"""AlexNet in the two orders of XNOR-Net."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from lowbit.models._blocks import activation as make_activation
from lowbit.models._blocks import chosen
from lowbit.nn import QConv2d
from lowbit.quantizers import Spec


class XNORAlexNet(nn.Module):
    """AlexNet without groups; first convolution and last layer float.

    ``order="bn_conv"``, of XNOR-Net: each quantized layer stands behind a batch norm of its own

        Conv 96, 11 x 11 of stride 4 - BN - ReLU - pool
        BN - QConv 256, 5 x 5 - pool      BN - QConv 384      BN - QConv 384
        BN - QConv 256 - pool             BN - QConv 4096, over the whole image
        BN - QConv 4096, 1 x 1            BN - ReLU - Linear

    Poolings are 3 x 3 maxima of stride 2. Between BN and convolution stands the activation; all
    layers have biases; eps is 1e-4, of the first BN 1e-5 and of the last 1e-3.

    ``order="conv_bn"``, of its binary weights on real inputs (BWN): the same layers, each followed
    by a BN of eps 1e-3 and the activation, and then by its pooling

    x (n, in_channels, image_size, image_size) -> (n, num_classes).

    ``channels``    of the five convolutions, ``features`` of the two layers behind them
    ``dropout``     share of the channels that are 0 before the two layers of ``features``
                    (``conv_bn`` alone; 0.1 in the repository)
    ``activation``  a name of ``ACTIVATIONS``; ``None``: nothing where the input quantizer has one
                    or two bits, else ReLU
    ``pad_value``   around quantized inputs; 0 as published
    ``image_size``  at least 63

    With 1000 classes and images of 224 62.40 million parameters, of which 58,236,928 are of the
    quantized layers.

    Source: XNOR-Net, Rastegari et al. 2016; ``alexnetxnor.lua`` and ``alexnet.lua`` of its
    repository.

    >>> import torch
    >>> model = XNORAlexNet(image_size=64, channels=(8, 8, 8, 8, 8), features=16)
    >>> model(torch.randn(2, 3, 64, 64)).shape
    torch.Size([2, 10])
    """

    def __init__(
        self,
        in_channels: int = 3,
        num_classes: int = 10,
        image_size: int = 224,
        *,
        order: str = "bn_conv",
        dropout: float = 0.0,
        channels: Sequence[int] = (96, 256, 384, 384, 256),
        features: int = 4096,
        activation: str | None = None,
        input_quantization: Spec = None,
        weight_quantization: Spec = None,
        gradient_cancellation_threshold: float | None = None,
        pad_value: float | None = 0,
    ) -> None:
        super().__init__()
        chosen("order", order, ("bn_conv", "conv_bn"))
        if dropout > 0 and (order == "bn_conv" or input_quantization is not None):
            raise ValueError(
                f"dropout={dropout} is of order='conv_bn' on real inputs: to a sign a dropped one "
                f"is +1; got order={order!r}, input_quantization={input_quantization!r}"
            )
        side = (image_size + 4 - 11) // 4 + 1
        for _ in range(3):
            side = (side - 3) // 2 + 1
        if side < 1:
            raise ValueError(
                f"image_size={image_size} is too small for a convolution of stride 4 and three "
                "poolings; it must be at least 63"
            )
        quantization: dict[str, Any] = {
            "input_quantization": input_quantization,
            "weight_quantization": weight_quantization,
            "gradient_cancellation_threshold": gradient_cancellation_threshold,
            "pad_value": pad_value,
        }

        def quantized(before: int, after: int, kernel: int, padding: int) -> list[nn.Module]:
            conv = QConv2d(before, after, kernel, padding=padding, **quantization)
            if order == "conv_bn":
                return [conv, *behind(after, input_quantization)]
            norm = nn.BatchNorm2d(before, eps=1e-4)
            return [norm, make_activation(activation, before, input_quantization), conv]

        def behind(channels: int, read_by: Spec) -> list[nn.Module]:
            norm = nn.BatchNorm2d(channels, eps=1e-3)
            return [norm, make_activation(activation, channels, read_by)]

        def dropped() -> list[nn.Module]:
            return [] if dropout == 0 else [nn.Dropout2d(dropout)]

        c1, c2, c3, c4, c5 = channels
        first = (nn.BatchNorm2d(c1, eps=1e-5), nn.ReLU())
        last = (nn.BatchNorm2d(features, eps=1e-3), nn.ReLU())
        self.features = nn.Sequential(
            nn.Conv2d(in_channels, c1, 11, stride=4, padding=2),
            *(first if order == "bn_conv" else behind(c1, input_quantization)),
            nn.MaxPool2d(3, 2),
            *quantized(c1, c2, 5, 2),
            nn.MaxPool2d(3, 2),
            *quantized(c2, c3, 3, 1),
            *quantized(c3, c4, 3, 1),
            *quantized(c4, c5, 3, 1),
            nn.MaxPool2d(3, 2),
            *dropped(),
            *quantized(c5, features, side, 0),
            *dropped(),
            *quantized(features, features, 1, 0),
            *(last if order == "bn_conv" else ()),
        )
        self.fc = nn.Linear(features, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.features(x).flatten(1))
