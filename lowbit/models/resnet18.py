"""ResNet-18 for 32 x 32 and 224 x 224 images."""

from __future__ import annotations

from lowbit.models._blocks import chosen
from lowbit.models.resnet import ResNet
from lowbit.quantizers import Spec


class ResNet18(ResNet):
    """ResNet-18 with quantized 3 x 3 convolutions; first convolution and last layer float.

        stem - 2 blocks of 64 channels - 2 of 128 - 2 of 256 - 2 of 512 - mean - Linear

    each stage after the first at half the size. x (n, in_channels, h, w) -> (n, num_classes).
    ``ResNet`` has more of the papers' variants.

    ``stem``        ``cifar``: 3 x 3 convolution - BN - activation;
                    ``imagenet``: 7 x 7 of stride 2 - BN - activation - 3 x 3 max-pool of stride 2
    ``shortcut``    ``conv``: around every convolution (Bi-Real Net); ``block``: around two
    ``downsample``  of shortcuts that change shape: ``float`` 1 x 1 convolution of stride 2 - BN;
                    ``pool_float``: 2 x 2 mean, float 1 x 1 convolution - BN (Bi-Real Net);
                    ``quantized``: as ``float``, with the quantizers of the other layers
    ``activation``  a name of ``ACTIVATIONS``; ``None``: nothing where the input quantizer has
                    one or two bits, else ReLU
    ``width``       channels of the first stage

    11.17 million parameters with the stem ``cifar`` and 10 classes, 11.69 million with
    ``imagenet`` and 1000. Without quantizers and with ``shortcut="block"`` it computes what
    torchvision's resnet18 does, and has the same names of parameters.

    Source: He et al. 2016; Bi-Real Net, Liu et al. 2018.

    >>> import torch
    >>> model = ResNet18(width=8, input_quantization="sign", weight_quantization="sign")
    >>> model(torch.randn(2, 3, 32, 32)).shape
    torch.Size([2, 10])
    """

    def __init__(
        self,
        in_channels: int = 3,
        num_classes: int = 10,
        *,
        stem: str = "cifar",
        shortcut: str = "conv",
        downsample: str = "float",
        activation: str | None = None,
        width: int = 64,
        input_quantization: Spec = None,
        weight_quantization: Spec = None,
        gradient_cancellation_threshold: float | None = None,
        pad_value: float | None = None,
    ) -> None:
        chosen("stem", stem, ("cifar", "imagenet"))
        chosen("downsample", downsample, ("float", "pool_float", "quantized"))
        super().__init__(
            in_channels,
            num_classes,
            depth=18,
            stem=stem,
            shortcut=shortcut,
            downsample=downsample,
            activation=activation,
            width=width,
            input_quantization=input_quantization,
            weight_quantization=weight_quantization,
            gradient_cancellation_threshold=gradient_cancellation_threshold,
            pad_value=pad_value,
        )
