"""A convolutional network for signals."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from lowbit.models._blocks import activation as make_activation
from lowbit.nn import QConv1d
from lowbit.quantizers import Spec


class ConvNet1d(nn.Module):
    """Three convolutions of stride 2 over a signal, the second and the third quantized.

        Conv 5 - BN - activation
        QConv 3 - BN - activation
        QConv 3 - BN - activation - flatten - Linear

    x (n, in_channels, image_size, image_size), or any shape of as many numbers per example, read
    as one signal, -> (n, num_classes).

    ``channels``    of the convolutions
    ``activation``  a name of ``ACTIVATIONS``; ``None``: ReLU, but nothing where the next layer
                    reads it through a quantizer of one or two bits

    5,285 parameters for MNIST-1D; the original, with biases and no batch norms, has 5,210.

    Source: ``ConvBase`` of greydanus/mnist1d, Greydanus and Kobak 2020, with batch norms.

    >>> import torch
    >>> model = ConvNet1d(input_quantization="sign", weight_quantization="sign")
    >>> model(torch.randn(2, 40, 1, 1)).shape
    torch.Size([2, 10])
    """

    def __init__(
        self,
        in_channels: int = 40,
        num_classes: int = 10,
        image_size: int = 1,
        channels: int = 25,
        *,
        activation: str | None = None,
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
            "pad_value": pad_value,
        }
        length = in_channels * image_size**2
        if length < 8:
            raise ValueError(
                f"a signal of {length} numbers (in_channels={in_channels}, image_size="
                f"{image_size}) is too short for three halvings; it has 8 at least"
            )
        self.features = nn.Sequential(
            nn.Conv1d(1, channels, 5, stride=2, padding=1, bias=False),
            nn.BatchNorm1d(channels),
            make_activation(activation, channels, input_quantization),
            QConv1d(channels, channels, 3, stride=2, padding=1, bias=False, **quantization),
            nn.BatchNorm1d(channels),
            make_activation(activation, channels, input_quantization),
            QConv1d(channels, channels, 3, stride=2, padding=1, bias=False, **quantization),
            nn.BatchNorm1d(channels),
            make_activation(activation, channels, None),
        )
        length = (length - 3) // 2 + 1
        for _ in range(2):
            length = (length - 1) // 2 + 1
        self.fc = nn.Linear(channels * length, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.features(x.flatten(1)[:, None]).flatten(1))
