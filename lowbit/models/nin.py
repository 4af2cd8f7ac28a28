"""Network in network as XNOR-Net's re-implementation has it."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from lowbit.models._blocks import behind_dropout
from lowbit.nn import QConv2d
from lowbit.quantizers import Spec


class NIN(nn.Module):
    """Three groups of a larger convolution and two 1 x 1; first and last convolution float.

        Conv 192, 5 x 5 - BN - ReLU    Q 160         Q 96 - max-pool
        Q 192, 5 x 5, dropout          Q 192         Q 192 - mean-pool
        Q 192, 3 x 3, dropout          Q 192 - BN    Conv classes - ReLU - mean

    with Q: BN - quantized convolution - ReLU, 1 x 1 where nothing is said. The poolings are
    3 x 3 of stride 2, padded; dropout stands between the quantizer of the inputs and the
    convolution. BN have eps 1e-4; the first and last have no parameters.
    x (n, in_channels, h, w) -> (n, num_classes).

    ``width``      channels: 192, and 5/6 and 1/2 of it in the first group
    ``dropout``    share of inputs that are 0
    ``conv_std``   deviation of the convolutions' first weights, normal with biases of 0; ``None``:
                   torch's initialisation
    ``pad_value``  around quantized inputs; 0 as published

    0.97 million parameters for CIFAR-10.

    Source: Lin et al. 2014, "Network In Network"; ``CIFAR_10/models/nin.py`` of
    jiecaoyu/XNOR-Net-PyTorch, which also keeps the factors of the batch norms at 0.01 or more.

    >>> import torch
    >>> model = NIN(width=24, input_quantization="sign", weight_quantization="xnor")
    >>> model(torch.randn(2, 3, 32, 32)).shape
    torch.Size([2, 10])
    """

    def __init__(
        self,
        in_channels: int = 3,
        num_classes: int = 10,
        *,
        width: int = 192,
        dropout: float = 0.5,
        conv_std: float | None = 0.05,
        input_quantization: Spec = None,
        weight_quantization: Spec = None,
        gradient_cancellation_threshold: float | None = None,
        pad_value: float | None = 0,
    ) -> None:
        super().__init__()
        if width < 6 or width % 6 != 0:
            raise ValueError(f"width must be a multiple of 6, of which 5/6 are taken; got {width}")
        quantization: dict[str, Any] = {
            "input_quantization": input_quantization,
            "weight_quantization": weight_quantization,
            "gradient_cancellation_threshold": gradient_cancellation_threshold,
            "pad_value": pad_value,
        }

        def block(before: int, after: int, kernel: int = 1, dropout: float = 0) -> nn.Sequential:
            conv = behind_dropout(
                QConv2d,
                before,
                after,
                kernel,
                padding=kernel // 2,
                dropout=dropout,
                quantization=quantization,
            )
            return nn.Sequential(nn.BatchNorm2d(before, eps=1e-4), *conv, nn.ReLU())

        self.features = nn.Sequential(
            nn.Conv2d(in_channels, width, 5, padding=2),
            nn.BatchNorm2d(width, eps=1e-4, affine=False),
            nn.ReLU(),
            block(width, width * 5 // 6),
            block(width * 5 // 6, width // 2),
            nn.MaxPool2d(3, 2, 1),
            block(width // 2, width, 5, dropout),
            block(width, width),
            block(width, width),
            nn.AvgPool2d(3, 2, 1),
            block(width, width, 3, dropout),
            block(width, width),
            nn.BatchNorm2d(width, eps=1e-4, affine=False),
            nn.Conv2d(width, num_classes, 1),
            nn.ReLU(),
        )
        for module in self.features.modules():
            if conv_std is not None and isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std=conv_std)
                assert module.bias is not None
                nn.init.zeros_(module.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.features(x).mean((2, 3))
