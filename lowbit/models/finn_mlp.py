"""The fully connected networks of FINN: TFC, SFC and LFC."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from lowbit.models._blocks import activation as make_activation
from lowbit.models._blocks import behind_dropout
from lowbit.models._tensor_norm import TensorNorm
from lowbit.nn import QLinear
from lowbit.quantizers import Spec


class FinnMLP(nn.Module):
    """Multilayer perceptron that is quantized throughout, the image too.

        flatten - [ q - dropout - QLinear - BN ] for each hidden layer
                - q - dropout - QLinear - TensorNorm

    with q the input quantizer. The images should lie in [-1, 1], 0.5 between black and white
    being 0: Brevitas has 2 x - 1 of pixels in [0, 1], of which a sign then keeps black and white.
    x (n, in_channels, image_size, image_size) -> (n, num_classes).

    ``hidden``   widths: (64, 64, 64) is TFC, (256, 256, 256) SFC, (1024, 1024, 1024) LFC
    ``dropout``  share of quantized inputs that are 0 in training, in front of every layer
    ``activation``  behind each BN: a name of ``ACTIVATIONS``; ``None``: nothing where the input
                 quantizer has one or two bits, else ReLU

    Weights start uniform in (-1, 1), and are clipped to it in training. Weights: TFC 59,008, SFC
    334,336, LFC 2,910,208; a batch norm adds two numbers for each hidden unit.

    Source: FINN, Umuroglu et al. 2017; ``bnn_pynq/models/FC.py`` of Brevitas.

    >>> import torch
    >>> model = FinnMLP(input_quantization="sign", weight_quantization="sign")
    >>> model(torch.rand(2, 1, 28, 28) * 2 - 1).shape
    torch.Size([2, 10])
    """

    def __init__(
        self,
        in_channels: int = 1,
        num_classes: int = 10,
        image_size: int = 28,
        hidden: Sequence[int] = (64, 64, 64),
        *,
        dropout: float = 0.2,
        activation: str | None = None,
        input_quantization: Spec = None,
        weight_quantization: Spec = None,
        gradient_cancellation_threshold: float | None = None,
    ) -> None:
        super().__init__()
        quantization: dict[str, Any] = {
            "input_quantization": input_quantization,
            "weight_quantization": weight_quantization,
            "gradient_cancellation_threshold": gradient_cancellation_threshold,
        }

        def linear(before: int, after: int) -> list[nn.Module]:
            return behind_dropout(
                QLinear, before, after, bias=False, dropout=dropout, quantization=quantization
            )

        layers: list[nn.Module] = [nn.Flatten()]
        before = in_channels * image_size**2
        for after in hidden:
            layers += [
                *linear(before, after),
                nn.BatchNorm1d(after),
                make_activation(activation, after, input_quantization),
            ]
            before = after
        self.layers = nn.Sequential(*layers, *linear(before, num_classes), TensorNorm())
        for module in self.modules():
            if isinstance(module, QLinear) and weight_quantization is not None:
                nn.init.uniform_(module.weight, -1, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)
