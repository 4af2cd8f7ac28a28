"""Multilayer perceptron."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from torch import Tensor, nn

from lowbit.models._blocks import activation as make_activation
from lowbit.models._blocks import behind_dropout
from lowbit.nn import QLinear
from lowbit.quantizers import Spec


class MLP(nn.Module):
    """Multilayer perceptron with quantized hidden layers.

        flatten - Linear - BN - [ activation - QLinear - BN ]* - activation - Linear

    ``hidden`` holds the width of each hidden layer: h widths make h - 1 quantized layers
    between the full-precision first and last. With ``binary_ends`` those two are quantized as
    well: the first its weights only, since it reads the images, and the last is followed by a
    BatchNorm, as in BNN.

    x (n, in_channels, image_size, image_size), or any shape of as many numbers per example,
    -> (n, num_classes).

    ``activation``    a name of ``ACTIVATIONS``; ``None``: ReLU where the next layer reads real
                      numbers, nothing where it has an input quantizer of one or two bits
    ``dropout``       share of quantized inputs that are 0 in training, before each layer but the
                      first; the quantizer stands in front, as in BNN's code (behind it, it would
                      make +1 of a dropped input, more often than in evaluation)
    ``input_dropout`` before the first layer
    ``norm_eps``      of the batch norms; the code of BinaryConnect and BNN has 1e-4

    2.9 million parameters for MNIST as it is (784 - 1024 - 1024 - 1024 - 10), BinaryConnect's;
    BNN's networks have ``hidden`` three times 4096 (Theano) and 2048 (Torch). Both binarise the
    ends.

    Source: the network of BinaryConnect, Courbariaux et al. 2015, and BNN, Hubara et al. 2016.

    >>> import torch
    >>> model = MLP(1, 10, 8, (32, 32), input_quantization="sign", weight_quantization="sign")
    >>> model(torch.randn(2, 1, 8, 8)).shape
    torch.Size([2, 10])
    """

    def __init__(
        self,
        in_channels: int = 1,
        num_classes: int = 10,
        image_size: int = 28,
        hidden: Sequence[int] = (1024, 1024, 1024),
        *,
        activation: str | None = None,
        dropout: float = 0.0,
        input_dropout: float = 0.0,
        binary_ends: bool = False,
        norm_eps: float = 1e-5,
        input_quantization: Spec = None,
        weight_quantization: Spec = None,
        gradient_cancellation_threshold: float | None = None,
    ) -> None:
        super().__init__()
        if len(hidden) == 0:
            raise ValueError("hidden needs the width of one hidden layer at least; got none")

        quantization: dict[str, Any] = {
            "input_quantization": input_quantization,
            "weight_quantization": weight_quantization,
            "gradient_cancellation_threshold": gradient_cancellation_threshold,
        }

        def quantized(before: int, after: int) -> list[nn.Module]:
            return behind_dropout(
                QLinear, before, after, bias=False, dropout=dropout, quantization=quantization
            )

        inputs = in_channels * image_size**2
        layers: list[nn.Module] = [nn.Flatten()]
        if input_dropout > 0:
            layers.append(nn.Dropout(input_dropout))
        layers.append(
            QLinear(inputs, hidden[0], bias=False, weight_quantization=weight_quantization)
            if binary_ends
            else nn.Linear(inputs, hidden[0], bias=False)
        )
        layers.append(nn.BatchNorm1d(hidden[0], eps=norm_eps))
        for before, after in pairwise(hidden):
            layers.append(make_activation(activation, before, input_quantization))
            layers += [*quantized(before, after), nn.BatchNorm1d(after, eps=norm_eps)]

        last_reads = input_quantization if binary_ends else None
        layers.append(make_activation(activation, hidden[-1], last_reads))
        if binary_ends:
            norm = nn.BatchNorm1d(num_classes, eps=norm_eps)
            layers += [*quantized(hidden[-1], num_classes), norm]
        else:
            if dropout > 0:
                layers.append(nn.Dropout(dropout))
            layers.append(nn.Linear(hidden[-1], num_classes))
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)
