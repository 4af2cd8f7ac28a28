"""An LSTM that reads images row by row."""

from __future__ import annotations

from torch import Tensor, nn


class RowLSTM(nn.Module):
    """An image is a sequence of its rows; the last hidden state is classified.

        rows - LSTM of ``hidden`` units, ``layers`` of them - last step - Linear

    x (n, in_channels, image_size, image_size) -> (n, num_classes): ``image_size`` steps of
    in_channels * image_size numbers. There are no quantizers: an LSTM has none, and goes to int8
    by ``lowbit.quantize_dynamic``.

    0.08 million parameters for MNIST.

    Source: reading images as sequences is the task of Le, Jaitly and Hinton 2015, "A Simple Way to
    Initialize Recurrent Networks of Rectified Linear Units", there pixel by pixel.

    >>> import torch
    >>> RowLSTM(hidden=16)(torch.randn(2, 1, 28, 28)).shape
    torch.Size([2, 10])
    """

    def __init__(
        self,
        in_channels: int = 1,
        num_classes: int = 10,
        image_size: int = 28,
        *,
        hidden: int = 128,
        layers: int = 1,
    ) -> None:
        super().__init__()
        self.lstm = nn.LSTM(in_channels * image_size, hidden, layers, batch_first=True)
        self.fc = nn.Linear(hidden, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        states, _ = self.lstm(x.transpose(1, 2).flatten(2))
        return self.fc(states[:, -1])
