"""Transposed convolutions on quantized tensors, of one to three spatial axes."""

from __future__ import annotations

from typing import Any, Self

import torch
from torch import nn

from lowbit.kernels import int8 as kernels
from lowbit.nn.quantized.conv import ConvNd, Sizes
from lowbit.qtensor import QTensor


class ConvTransposeNd(ConvNd):
    """What transposed convolutions share: scales of the weight run along its second axis."""

    transposed = True
    channel_axis = 1
    padding_modes = ("zeros",)

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Sizes,
        stride: Sizes = 1,
        padding: Sizes = 0,
        output_padding: Sizes = 0,
        groups: int = 1,
        bias: bool = True,
        dilation: Sizes = 1,
        padding_mode: str = "zeros",
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        nn.Module.__init__(self)
        self._init_layout(
            *(in_channels, out_channels, kernel_size, stride, padding, dilation),
            *(output_padding, groups, bias, padding_mode, device),
        )

    def forward(self, input: QTensor) -> QTensor:
        """QTensor (n, in_channels, ...) -> QTensor (n, out_channels, ...), or float32 numbers."""
        scale, zero_point = self._scale, self._zero_point
        values, x_scale, x_zero_point = self._input(input)
        values = kernels.conv_transpose(
            values,
            x_scale,
            x_zero_point,
            self._weight,
            self._kernel_scale,
            self._kernel_zero_point,
            self._bias,
            self.stride,
            self.padding,
            self.output_padding,
            self.groups,
            self.dilation,
            scale,
            zero_point,
            self.out_dtype,
        )
        if self.out_dtype == torch.float32:
            return values  # type: ignore[return-value]
        return self._limited(QTensor(values, scale, zero_point))

    @classmethod
    def _like(cls, mod: Any) -> Self:
        return cls(
            *(mod.in_channels, mod.out_channels, mod.kernel_size, mod.stride, mod.padding),
            *(mod.output_padding, mod.groups, mod.bias is not None),
            *(mod.dilation, mod.padding_mode),
        )


class ConvTranspose1d(ConvTransposeNd):
    """``torch.nn.ConvTranspose1d`` in int8; see ``ConvTranspose2d``."""

    axes, float_type = 1, nn.ConvTranspose1d


class ConvTranspose2d(ConvTransposeNd):
    """``torch.nn.ConvTranspose2d`` in int8: QTensor (n, c, h, w) -> QTensor (n, o, h', w').

    ``weight()`` int8 (c, o / groups, kh, kw) with one scale, or o / groups along axis 1; a weight
    observer per channel is told to look along that axis. Otherwise as ``Conv2d``, with
    padding_mode "zeros" only.
    """

    axes, float_type = 2, nn.ConvTranspose2d


class ConvTranspose3d(ConvTransposeNd):
    """``torch.nn.ConvTranspose3d`` in int8; see ``ConvTranspose2d``."""

    axes, float_type = 3, nn.ConvTranspose3d
