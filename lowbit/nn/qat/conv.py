"""Convolutions for quantization-aware training."""

from __future__ import annotations

from typing import Any, ClassVar, Self

import torch.nn.functional as F
from torch import Tensor, nn

from lowbit.nn.qat._layer import QatLayer, detached, layers_of, qconfig_of


class QatConv(QatLayer):
    """Mixin: a convolution whose weight is rounded by ``weight_fake_quant``.

    y = conv(x, fake_quant(weight)) + bias, with torch's arguments and padding modes. Raises
    ValueError without a ``qconfig``.
    """

    conv: ClassVar[type[nn.Module]]
    in_channels: int
    out_channels: int
    kernel_size: Any
    stride: Any
    padding: Any
    dilation: Any
    groups: int
    padding_mode: Any
    _conv_forward: Any

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Any,
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
        qconfig: Any = None,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        convolution = (in_channels, out_channels, kernel_size, stride, padding, dilation, groups)
        super().__init__(*convolution, bias, padding_mode, device=device, dtype=dtype)
        self._set_qconfig(qconfig)

    def forward(self, x: Tensor) -> Tensor:
        return self._conv_forward(x, self.weight_fake_quant(self.weight), self.bias)

    @classmethod
    def _like(cls, conv: Any, qconfig: Any, *more: Any) -> Self:
        make: Any = cls
        layer = make(*_arguments(conv), *more, qconfig, conv.weight.device, conv.weight.dtype)
        return layer._take_parameters(conv)

    @classmethod
    def from_float(cls, mod: nn.Module, use_precomputed_fake_quant: bool = False) -> Self:
        """Of torch's convolution with a ``qconfig``; its Parameters are shared.

        Raises TypeError for other modules, ValueError without a qconfig.
        """
        (conv,) = layers_of(cls, mod, (cls.conv,))
        return cls._like(conv, mod.qconfig)

    def to_float(self) -> nn.Module:
        """torch's convolution with copies of weight and bias, in full precision."""
        return self._float()

    def _float(self) -> nn.Module:
        kind = {"device": self.weight.device, "dtype": self.weight.dtype}
        return detached(self.conv(*_arguments(self), **kind), self)


def _arguments(conv: Any) -> tuple[Any, ...]:
    """What a convolution was made with."""
    return (
        conv.in_channels,
        conv.out_channels,
        conv.kernel_size,
        conv.stride,
        conv.padding,
        conv.dilation,
        conv.groups,
        conv.bias is not None,
        conv.padding_mode,
    )


class QatConvReLU(QatConv):
    """Mixin: ``QatConv``, then ReLU."""

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(super().forward(x))

    @classmethod
    def from_float(cls, mod: nn.Module, use_precomputed_fake_quant: bool = False) -> Self:
        """Of ``nn.Sequential(convolution, ReLU)`` with a ``qconfig``."""
        conv, _ = layers_of(cls, mod, (cls.conv, nn.ReLU))
        return cls._like(conv, qconfig_of(mod, conv))

    def to_float(self) -> nn.Module:
        """``nn.Sequential(convolution, ReLU)`` with copies of weight and bias."""
        return nn.Sequential(self._float(), nn.ReLU()).train(self.training)


class Conv1d(QatConv, nn.Conv1d):
    """``torch.nn.Conv1d`` whose weight is rounded by ``weight_fake_quant``."""

    conv = nn.Conv1d


class Conv2d(QatConv, nn.Conv2d):
    """``torch.nn.Conv2d`` whose weight is rounded by ``weight_fake_quant``."""

    conv = nn.Conv2d


class Conv3d(QatConv, nn.Conv3d):
    """``torch.nn.Conv3d`` whose weight is rounded by ``weight_fake_quant``."""

    conv = nn.Conv3d


class ConvReLU1d(QatConvReLU, nn.Conv1d):
    """``Conv1d``, then ReLU."""

    conv = nn.Conv1d


class ConvReLU2d(QatConvReLU, nn.Conv2d):
    """``Conv2d``, then ReLU."""

    conv = nn.Conv2d


class ConvReLU3d(QatConvReLU, nn.Conv3d):
    """``Conv3d``, then ReLU."""

    conv = nn.Conv3d
