"""AlexNet as BNN has it, binary from the first layer to the last."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from lowbit.models._blocks import activation as make_activation
from lowbit.nn import QConv2d, QLinear
from lowbit.quantizers import Spec


class BinaryAlexNet(nn.Module):
    """AlexNet whose layers are all quantized; the first reads the image as it is.

        QConv 64, 11 x 11 of stride 4 - pool - BN      QConv 192, 5 x 5 - pool - BN
        QConv 384 - BN      QConv 384 - BN             QConv 256 - pool - BN - flatten
        QLinear 4096 - BN   QLinear 4096 - BN          QLinear - BN

    Poolings are 3 x 3 maxima of stride 2; a nonlinearity stands behind each BN but the last. The
    first layer has the weight quantizer only. x (n, in_channels, image_size, image_size) ->
    (n, num_classes).

    ``channels``    of the five convolutions, ``features`` of the two layers behind them
    ``norm_scale``  False: the factors of the batch norms stay 1, as in larq's model zoo
    ``activation``  a name of ``ACTIVATIONS``; ``None``: nothing where the input quantizer has one
                    or two bits, else ReLU
    ``pad_value``   around quantized inputs; 0 as published
    ``image_size``  at least 59

    The padding of the first layer is 4, where TensorFlow's is 3 in front and 4 behind. With 1000
    classes and images of 224 61.85 million parameters, of which 61,804,544 are of layers with both
    quantizers and 23,232 of the first.

    Source: BNN, Hubara et al. 2016; ``larq_zoo.literature.BinaryAlexNet``, whose BN (eps 1e-3) it
    has.

    >>> import torch
    >>> model = BinaryAlexNet(image_size=64, channels=(8, 8, 8, 8, 8), features=16)
    >>> model(torch.randn(2, 3, 64, 64)).shape
    torch.Size([2, 10])
    """

    def __init__(
        self,
        in_channels: int = 3,
        num_classes: int = 10,
        image_size: int = 224,
        *,
        channels: Sequence[int] = (64, 192, 384, 384, 256),
        features: int = 4096,
        norm_scale: bool = False,
        activation: str | None = None,
        input_quantization: Spec = None,
        weight_quantization: Spec = None,
        gradient_cancellation_threshold: float | None = None,
        pad_value: float | None = 0,
    ) -> None:
        super().__init__()
        side = (image_size + 8 - 11) // 4 + 1
        for _ in range(3):
            side = (side - 3) // 2 + 1
        if side < 1:
            raise ValueError(
                f"image_size={image_size} is too small for a convolution of stride 4 and three "
                "poolings; it must be at least 59"
            )
        quantization: dict[str, Any] = {
            "input_quantization": input_quantization,
            "weight_quantization": weight_quantization,
            "gradient_cancellation_threshold": gradient_cancellation_threshold,
        }

        def norm(kind: type[nn.BatchNorm1d | nn.BatchNorm2d], size: int) -> nn.Module:
            made = kind(size, eps=1e-3)
            made.weight.requires_grad_(norm_scale)
            return made

        def convolution(
            before: int, after: int, kernel: int, pool: bool, **options: Any
        ) -> list[nn.Module]:
            options = {**quantization, "pad_value": pad_value, "padding": kernel // 2, **options}
            return [
                QConv2d(before, after, kernel, bias=False, **options),
                *([nn.MaxPool2d(3, 2)] if pool else []),
                norm(nn.BatchNorm2d, after),
                make_activation(activation, after, input_quantization),
            ]

        def linear(before: int, after: int) -> list[nn.Module]:
            layer = QLinear(before, after, bias=False, **quantization)
            return [layer, norm(nn.BatchNorm1d, after)]

        c1, c2, c3, c4, c5 = channels
        of_images = {
            "stride": 4,
            "padding": 4,
            "pad_value": None,
            "input_quantization": None,
            "gradient_cancellation_threshold": None,
        }
        self.features = nn.Sequential(
            *convolution(in_channels, c1, 11, True, **of_images),
            *convolution(c1, c2, 5, True),
            *convolution(c2, c3, 3, False),
            *convolution(c3, c4, 3, False),
            *convolution(c4, c5, 3, True),
        )
        self.classifier = nn.Sequential(
            *linear(c5 * side**2, features),
            make_activation(activation, features, input_quantization),
            *linear(features, features),
            make_activation(activation, features, input_quantization),
            *linear(features, num_classes),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(x).flatten(1))
