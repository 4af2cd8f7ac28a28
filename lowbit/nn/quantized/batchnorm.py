"""Batch normalization on quantized tensors, with the running statistics."""

from __future__ import annotations

from typing import Any, Self

import torch
from torch import Tensor, nn

from lowbit.functional.int8 import norm
from lowbit.nn.quantized._inputs import check_axes, quantized
from lowbit.nn.quantized._observed import output_limits, output_qparams
from lowbit.nn.quantized._output import OutputScale
from lowbit.qtensor import QTensor


class _BatchNorm(OutputScale, nn.modules.batchnorm._BatchNorm):
    axes: int

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float = 0.1,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(num_features, eps, momentum, True, True, device, dtype)
        self.scale, self.zero_point = 1.0, 0

    @torch.no_grad()
    def forward(self, input: QTensor) -> QTensor:  # type: ignore[override]
        """QTensor (n, c, ...) -> QTensor, in training mode as well; ValueError for other axes."""
        x = quantized(input, type(self).__name__)
        check_axes(x, self.axes, type(self).__name__)
        assert self.running_mean is not None
        assert self.running_var is not None
        values = norm.batch_norm(
            x.values,
            x.q_scale(),
            x.q_zero_point(),
            self.running_mean,
            self.running_var,
            self.weight,
            self.bias,
            self.eps,
            self.scale,
            self.zero_point,
        )
        return self._limited(QTensor(values, self.scale, self.zero_point))

    @classmethod
    def from_float(cls, mod: Any, use_precomputed_fake_quant: bool = False) -> Self:
        """Of an observed ``torch.nn.BatchNorm2d`` or 3d, alone; a fused ReLU is not kept."""
        observer = getattr(mod, "activation_post_process", None)
        module = cls.from_reference(mod, *output_qparams(observer, cls.__name__))
        module.limits = output_limits(observer)
        return module

    @classmethod
    def from_reference(
        cls, bn: Any, output_scale: float | Tensor, output_zero_point: int | Tensor
    ) -> Self:
        """Of a float batch norm and the qparams of its output; the tensors are shared.

        ValueError where it has no running statistics.
        """
        if bn.running_mean is None or bn.running_var is None:
            raise ValueError(
                f"{cls.__name__} takes a batch norm with running statistics: "
                "track_running_stats=True"
            )
        qbn = cls(bn.num_features, bn.eps, bn.momentum, device=bn.running_mean.device)
        if bn.affine:
            qbn.weight, qbn.bias = bn.weight, bn.bias
        qbn.running_mean, qbn.running_var = bn.running_mean, bn.running_var
        qbn.scale, qbn.zero_point = output_scale, output_zero_point
        return qbn


class BatchNorm2d(_BatchNorm):
    """``torch.nn.BatchNorm2d`` in eval mode on a QTensor (n, c, h, w), quantized anew."""

    axes = 2


class BatchNorm3d(_BatchNorm):
    """``torch.nn.BatchNorm3d`` in eval mode on a QTensor (n, c, d, h, w), quantized anew."""

    axes = 3
