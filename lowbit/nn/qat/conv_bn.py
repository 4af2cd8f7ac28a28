"""Convolution and batch norm, fused for quantization-aware training."""

from __future__ import annotations

from typing import Any, ClassVar, Self

import torch.nn.functional as F
from torch import Tensor, nn

from lowbit.nn.qat._layer import layers_of, qconfig_of
from lowbit.nn.qat._norm import FoldedNorm
from lowbit.nn.qat.conv import QatConv


class QatConvBn(FoldedNorm, QatConv):
    """Mixin: convolution and batch norm, with the folded weight rounded (``FoldedNorm``).

    The arguments of both, and ``freeze_bn``: normalise by the running statistics.
    """

    norm: ClassVar[type[nn.Module]]
    last: ClassVar[tuple[type[nn.Module], ...]] = ()

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Any,
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        groups: int = 1,
        bias: bool | None = None,
        padding_mode: str = "zeros",
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        freeze_bn: bool = False,
        qconfig: Any = None,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        convolution = (in_channels, out_channels, kernel_size, stride, padding, dilation, groups)
        super().__init__(*convolution, bool(bias), padding_mode, qconfig, device, dtype)
        self._set_norm(self.norm(out_channels, eps, momentum), freeze_bn)

    def forward(self, x: Tensor) -> Tensor:
        return self._normed(x, lambda x, weight: self._conv_forward(x, weight, None))

    @classmethod
    def from_float(cls, mod: nn.Module, use_precomputed_fake_quant: bool = False) -> Self:
        """Of ``nn.Sequential(convolution, batch norm)``, and ReLU, with a ``qconfig``.

        Parameters and statistics are shared. Raises TypeError for other modules, ValueError
        without a qconfig and for a batch norm without parameters or statistics.
        """
        conv, bn, *_ = layers_of(cls, mod, (cls.conv, cls.norm, *cls.last))
        layer = cls._like(conv, qconfig_of(mod, conv), bn.eps, bn.momentum, False)
        return layer._take_norm(bn).train(mod.training)

    def to_float(self) -> nn.Module:
        """torch's convolution with the batch norm folded in, and ReLU where there is one."""
        conv = self._folded_into(self._float())
        if not self.last:
            return conv
        return nn.Sequential(conv, *(kind() for kind in self.last)).train(self.training)


class QatConvBnReLU(QatConvBn):
    """Mixin: ``QatConvBn``, then ReLU."""

    last = (nn.ReLU,)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(super().forward(x))


class ConvBn1d(QatConvBn, nn.Conv1d):
    """``Conv1d`` and ``BatchNorm1d``, with the folded weight rounded."""

    conv, norm = nn.Conv1d, nn.BatchNorm1d


class ConvBn2d(QatConvBn, nn.Conv2d):
    """``Conv2d`` and ``BatchNorm2d``, with the folded weight rounded."""

    conv, norm = nn.Conv2d, nn.BatchNorm2d


class ConvBn3d(QatConvBn, nn.Conv3d):
    """``Conv3d`` and ``BatchNorm3d``, with the folded weight rounded."""

    conv, norm = nn.Conv3d, nn.BatchNorm3d


class ConvBnReLU1d(QatConvBnReLU, nn.Conv1d):
    """``ConvBn1d``, then ReLU."""

    conv, norm = nn.Conv1d, nn.BatchNorm1d


class ConvBnReLU2d(QatConvBnReLU, nn.Conv2d):
    """``ConvBn2d``, then ReLU."""

    conv, norm = nn.Conv2d, nn.BatchNorm2d


class ConvBnReLU3d(QatConvBnReLU, nn.Conv3d):
    """``ConvBn3d``, then ReLU."""

    conv, norm = nn.Conv3d, nn.BatchNorm3d
