"""The small VGG of CIFAR papers."""

from __future__ import annotations

from torch import Tensor, nn

from lowbit.models._blocks import INITIALISATIONS, chosen, initialise
from lowbit.models._blocks import activation as make_activation
from lowbit.nn import QConv2d
from lowbit.quantizers import Spec


class VGGSmall(nn.Module):
    """Six 3 x 3 convolutions and one linear layer; the first convolution and the last layer float.

        Conv 128 - BN - activation        QConv 128 - pool - BN - activation
        QConv 256 - BN - activation       QConv 256 - pool - BN - activation
        QConv 512 - BN - activation       QConv 512 - pool - BN - activation
        flatten - Linear

    x (n, in_channels, image_size, image_size), image_size a multiple of 8,
    -> (n, num_classes).

    ``activation``  a name of ``ACTIVATIONS`` (IR-Net: ``hardtanh``); ``None``: ReLU, but nothing
                    where the next layer reads it through a quantizer of one or two bits
    ``width``       channels of the first pair; the next pairs have two and four times as many
    ``order``       ``pool_bn``: as above; ``bn_pool``: BN - activation - pool, where every BN
                    stands behind its convolution, and folds into it for int8
    ``weight_init`` of convolutions: ``torch``: its own; ``kaiming``: normal of variance
                    2 / fan_out, as in IR-Net's code, whose last layer is normal of deviation 0.01;
                    ``bireal`` and ``glorot`` as in ``ResNet``

    4.66 million parameters for CIFAR-10, of them 85,386 in full-precision layers.

    Source: VGG-Small of LQ-Nets, Zhang et al. 2018; ``vgg_small`` of IR-Net's repository.

    >>> import torch
    >>> model = VGGSmall(width=8, input_quantization="sign", weight_quantization="sign")
    >>> model(torch.randn(2, 3, 32, 32)).shape
    torch.Size([2, 10])
    """

    def __init__(
        self,
        in_channels: int = 3,
        num_classes: int = 10,
        image_size: int = 32,
        width: int = 128,
        *,
        activation: str | None = None,
        order: str = "pool_bn",
        weight_init: str = "torch",
        input_quantization: Spec = None,
        weight_quantization: Spec = None,
        gradient_cancellation_threshold: float | None = None,
        pad_value: float | None = None,
    ) -> None:
        super().__init__()
        chosen("order", order, ("pool_bn", "bn_pool"))
        chosen("weight_init", weight_init, INITIALISATIONS)
        if image_size % 8 != 0 or image_size < 8:
            raise ValueError(
                f"VGGSmall halves the image three times, so image_size must be a multiple of 8; "
                f"got {image_size}"
            )
        widths = [width, width, 2 * width, 2 * width, 4 * width, 4 * width]
        layers: list[nn.Module] = []
        channels = in_channels
        for index, after in enumerate(widths):
            if index == 0:
                layers.append(nn.Conv2d(channels, after, 3, padding=1, bias=False))
            else:
                layers.append(
                    QConv2d(
                        channels,
                        after,
                        3,
                        padding=1,
                        bias=False,
                        input_quantization=input_quantization,
                        weight_quantization=weight_quantization,
                        gradient_cancellation_threshold=gradient_cancellation_threshold,
                        pad_value=pad_value,
                    )
                )
            read_by = None if index == len(widths) - 1 else input_quantization
            pool = [nn.MaxPool2d(2)] if index % 2 == 1 else []
            norm = [nn.BatchNorm2d(after), make_activation(activation, after, read_by)]
            layers += [*pool, *norm] if order == "pool_bn" else [*norm, *pool]
            channels = after
        self.features = nn.Sequential(*layers)
        self.fc = nn.Linear(channels * (image_size // 8) ** 2, num_classes)
        for module in [*self.features, self.fc]:
            if isinstance(module, nn.Conv2d | nn.Linear):
                initialise(module, weight_init)
        if weight_init == "kaiming":
            nn.init.normal_(self.fc.weight, std=0.01)
            nn.init.zeros_(self.fc.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.features(x).flatten(1))
