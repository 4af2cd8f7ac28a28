"""AlexNet as DoReFa-Net has it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from lowbit import quantizers
from lowbit.nn import QConv2d, QLinear
from lowbit.quantizers import Spec


class DoReFaAlexNet(nn.Module):
    """AlexNet with batch norms behind the quantized layers; first and last layer float.

        Conv 96, 12 x 12 of stride 4          QConv 256, 5 x 5 - BN - pool
        QConv 384 - BN - pool                 QConv 384 - BN
        QConv 256 - BN - pool - flatten       QLinear 4096 - BN     QLinear 4096 - BN - Linear

    Poolings are 3 x 3 maxima of stride 2, the first two to half the size rounded up. The
    nonlinearity is the clip to [0, 1] that the input quantizer ``dorefa_input`` begins with, and
    stands as such before the last layer. An input quantizer of one or two bits is a nonlinearity
    by itself; without one, and before a signed one of more bits, stands a ReLU.
    BN have eps 1e-4. x (n, in_channels, image_size, image_size) -> (n, num_classes).

    ``groups``      of the 5 x 5 convolution and the last two: 2 as in the authors' code, 1 in
                    larq's model zoo
    ``channels``    of the five convolutions, ``features`` of the two layers behind them
    ``pad_value``   around quantized inputs; ``None``: 0 for inputs in [0, 1], -1 for signs
    ``image_size``  at least 44

    With 1000 classes and images of 224 61.0 million parameters, with ``groups=1`` 62.4 million, of
    which 56,823,808 and 58,236,928 are of the quantized layers.

    Source: DoReFa-Net, Zhou et al. 2016; ``alexnet-dorefa.py`` of tensorpack.

    >>> import torch
    >>> model = DoReFaAlexNet(image_size=80, channels=(8, 8, 8, 8, 8), features=16)
    >>> model(torch.randn(2, 3, 80, 80)).shape
    torch.Size([2, 10])
    """

    def __init__(
        self,
        in_channels: int = 3,
        num_classes: int = 10,
        image_size: int = 224,
        *,
        groups: int = 2,
        channels: Sequence[int] = (96, 256, 384, 384, 256),
        features: int = 4096,
        input_quantization: Spec = None,
        weight_quantization: Spec = None,
        gradient_cancellation_threshold: float | None = None,
        pad_value: float | None = None,
    ) -> None:
        super().__init__()
        quantization: dict[str, Any] = {
            "input_quantization": input_quantization,
            "weight_quantization": weight_quantization,
            "gradient_cancellation_threshold": gradient_cancellation_threshold,
        }
        reads = quantizers.get(input_quantization)
        clipped = reads is not None and (reads.is_nonlinearity or not reads.signed)

        def convolution(before: int, after: int, kernel: int, groups: int = 1) -> list[nn.Module]:
            conv = QConv2d(
                before,
                after,
                kernel,
                padding=kernel // 2,
                groups=groups,
                bias=False,
                pad_value=pad_value,
                **quantization,
            )
            return [conv, nn.BatchNorm2d(after, eps=1e-4)]

        def nonlinearity() -> nn.Module:
            return nn.Identity() if clipped else nn.ReLU()

        side = (image_size - 12) // 4 + 1
        # Padding of the poolings to half the size, as TensorFlow's SAME has it.
        first, second = side % 2, -(-side // 2) % 2
        side = -(-side // 4)
        side = (side - 3) // 2 + 1
        if side < 1 or image_size < 12:
            raise ValueError(
                f"image_size={image_size} is too small for a convolution of stride 4 and three "
                "poolings; it must be at least 44"
            )
        c1, c2, c3, c4, c5 = channels
        self.features = nn.Sequential(
            nn.Conv2d(in_channels, c1, 12, stride=4, bias=False),
            nonlinearity(),
            *convolution(c1, c2, 5, groups),
            nn.MaxPool2d(3, 2, first, ceil_mode=True),
            nonlinearity(),
            *convolution(c2, c3, 3),
            nn.MaxPool2d(3, 2, second, ceil_mode=True),
            nonlinearity(),
            *convolution(c3, c4, 3, groups),
            nonlinearity(),
            *convolution(c4, c5, 3, groups),
            nn.MaxPool2d(3, 2),
            nonlinearity(),
        )
        self.hidden = nn.Sequential(
            QLinear(c5 * side**2, features, bias=False, **quantization),
            nn.BatchNorm1d(features, eps=1e-4),
            nonlinearity(),
            QLinear(features, features, bias=False, **quantization),
            nn.BatchNorm1d(features, eps=1e-4),
            nn.Hardtanh(0.0, 1.0) if clipped else nn.ReLU(),
        )
        self.fc = nn.Linear(features, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.hidden(self.features(x).flatten(1)))
