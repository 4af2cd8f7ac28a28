"""Transposed convolutions with quantizers."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvTransposeNd

from lowbit.nn._layer import QuantizedLayer
from lowbit.quantizers import Spec


class _QConvTranspose(QuantizedLayer, _ConvTransposeNd):
    """The common part of the transposed convolutions.

    Their ``padding`` removes outputs, so there is nothing to pad with. The weight is laid out
    (in_channels, out_channels / groups, …): channels of a weight quantizer are on axis 1.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Any,
        stride: Any = 1,
        padding: Any = 0,
        output_padding: Any = 0,
        groups: int = 1,
        bias: bool = True,
        dilation: Any = 1,
        padding_mode: str = "zeros",
        device: Any = None,
        dtype: Any = None,
        *,
        input_quantization: Spec = None,
        weight_quantization: Spec = None,
        gradient_cancellation_threshold: float | None = None,
        gradient_quantization: Spec = None,
    ) -> None:
        super().__init__(  # nn.ConvTranspose2d's signature
            in_channels,
            out_channels,
            kernel_size,
            stride,
            padding,
            output_padding,
            groups,
            bias,
            dilation,
            padding_mode,
            device,
            dtype,
        )
        self._set_quantization(
            input_quantization,
            weight_quantization,
            gradient_cancellation_threshold,
            gradient_quantization,
            input_layout=(in_channels, -len(self.kernel_size) - 1),
            weight_layout=(out_channels // groups, 1),
            output_layout=(out_channels, -len(self.kernel_size) - 1),
        )

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        output_padding = self._output_padding(
            x,
            output_size,
            self.stride,  # type: ignore[arg-type]
            self.padding,  # type: ignore[arg-type]
            self.kernel_size,  # type: ignore[arg-type]
            len(self.kernel_size),
            self.dilation,  # type: ignore[arg-type]
        )
        transpose = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)
        y = transpose[len(self.kernel_size) - 1](
            self._quantized_input(x),
            self._quantized_weight(),
            self.bias,
            self.stride,
            self.padding,  # type: ignore[arg-type]  # never a string here
            output_padding,
            self.groups,
            self.dilation,
        )
        return self._with_quantized_gradient(y)


class QConvTranspose1d(_QConvTranspose, nn.ConvTranspose1d):
    """``torch.nn.ConvTranspose1d`` on quantized input and weight: x (N, C, L) or (C, L).

    Arguments as ``QConvTranspose2d``.
    """


class QConvTranspose2d(_QConvTranspose, nn.ConvTranspose2d):
    """``torch.nn.ConvTranspose2d`` on quantized input and weight: x (N, C, H, W) or (C, H, W).

    y = conv_transpose(q_in(x), q_w(weight)) + bias. The quantizers and
    the gradient's arguments are as in ``QLinear``; all other arguments are those of
    ``torch.nn.ConvTranspose2d``.

    >>> import torch
    >>> layer = QConvTranspose2d(3, 8, 2, stride=2, weight_quantization="sign")
    >>> layer(torch.randn(2, 3, 5, 5)).shape
    torch.Size([2, 8, 10, 10])
    """


class QConvTranspose3d(_QConvTranspose, nn.ConvTranspose3d):
    """``torch.nn.ConvTranspose3d`` on quantized input and weight: (N, C, D, H, W) or (C, D, H, W).

    Arguments as ``QConvTranspose2d``.
    """
