"""Layer, group and instance normalization on quantized tensors.

The statistics are those of the real numbers; the output is quantized anew. Scales of outputs are
rounded to float32, as torch's buffers hold them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn

from lowbit.functional.int8 import norm
from lowbit.nn.quantized._inputs import check_axes, quantized
from lowbit.nn.quantized._observed import output_limits, output_qparams
from lowbit.nn.quantized._output import OutputScale, float32_scale
from lowbit.qtensor import QTensor


class _Norm(OutputScale):
    """Weight, bias and output scale of a normalization."""

    weight: Any
    bias: Any

    def _set(
        self, weight: Tensor | None, bias: Tensor | None, scale: float, zero_point: int
    ) -> None:
        self.weight, self.bias = _parameter(weight), _parameter(bias)
        self.scale, self.zero_point = float32_scale(scale), zero_point

    def _result(self, values: Tensor) -> QTensor:
        return self._limited(QTensor(values, self.scale, self.zero_point))

    @classmethod
    def from_float(cls, mod: Any, use_precomputed_fake_quant: bool = False) -> Self:
        """Of an observed float normalization; it shares weight and bias."""
        observer = getattr(mod, "activation_post_process", None)
        module = cls.from_reference(mod, *output_qparams(observer, cls.__name__))
        module.limits = output_limits(observer)
        return module

    @classmethod
    def from_reference(cls, mod: Any, scale: float, zero_point: int) -> Self:
        """Of a float normalization and the qparams of its output."""
        raise NotImplementedError


def _parameter(value: Tensor | None) -> nn.Parameter | None:
    if value is None or isinstance(value, nn.Parameter):
        return value
    return nn.Parameter(value, requires_grad=False)


class LayerNorm(_Norm, nn.LayerNorm):
    """``torch.nn.LayerNorm`` on a QTensor; ``weight`` and ``bias`` float, or None."""

    def __init__(
        self,
        normalized_shape: int | Sequence[int],
        weight: Tensor | None,
        bias: Tensor | None,
        scale: float,
        zero_point: int,
        eps: float = 1e-5,
        elementwise_affine: bool = True,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(
            normalized_shape,
            eps=eps,
            elementwise_affine=elementwise_affine,
            device=device,
            dtype=dtype,
        )
        self._set(weight, bias, scale, zero_point)

    @torch.no_grad()
    def forward(self, input: QTensor) -> QTensor:  # type: ignore[override]
        """QTensor (..., *normalized_shape) -> QTensor."""
        x = quantized(input, "LayerNorm")
        values = norm.layer_norm(
            x.values,
            x.q_scale(),
            x.q_zero_point(),
            self.normalized_shape,
            self.weight,
            self.bias,
            self.eps,
            self.scale,
            self.zero_point,
        )
        return self._result(values)

    @classmethod
    def from_reference(cls, mod: Any, scale: float, zero_point: int) -> Self:
        return cls(
            *(mod.normalized_shape, mod.weight, mod.bias, float(scale), int(zero_point)),
            *(mod.eps, mod.elementwise_affine),
        )


class GroupNorm(_Norm, nn.GroupNorm):
    """``torch.nn.GroupNorm`` on a QTensor (n, c, ...); ``weight``, ``bias`` (c,) or None."""

    def __init__(
        self,
        num_groups: int,
        num_channels: int,
        weight: Tensor | None,
        bias: Tensor | None,
        scale: float,
        zero_point: int,
        eps: float = 1e-5,
        affine: bool = True,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(num_groups, num_channels, eps, affine, device=device, dtype=dtype)
        self._set(weight, bias, scale, zero_point)

    @torch.no_grad()
    def forward(self, input: QTensor) -> QTensor:  # type: ignore[override]
        """QTensor (n, c, ...) -> QTensor."""
        x = quantized(input, "GroupNorm")
        values = norm.group_norm(
            x.values,
            x.q_scale(),
            x.q_zero_point(),
            self.num_groups,
            self.weight,
            self.bias,
            self.eps,
            self.scale,
            self.zero_point,
        )
        return self._result(values)

    @classmethod
    def from_reference(cls, mod: Any, scale: float, zero_point: int) -> Self:
        return cls(
            *(mod.num_groups, mod.num_channels, mod.weight, mod.bias),
            *(float(scale), int(zero_point), mod.eps, mod.affine),
        )


class _InstanceNorm(_Norm, nn.modules.instancenorm._InstanceNorm):
    axes: int

    def __init__(
        self,
        num_features: int,
        weight: Tensor | None,
        bias: Tensor | None,
        scale: float,
        zero_point: int,
        eps: float = 1e-5,
        momentum: float = 0.1,
        affine: bool = False,
        track_running_stats: bool = False,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        name = type(self).__name__
        if track_running_stats:
            raise ValueError(
                f"{name} takes the statistics of each input, never running ones: "
                "track_running_stats must be False"
            )
        super().__init__(num_features, eps, momentum, affine, False, device=device, dtype=dtype)
        self._set(weight, bias, scale, zero_point)

    @torch.no_grad()
    def forward(self, input: QTensor) -> QTensor:  # type: ignore[override]
        """QTensor (n, c, ...) -> QTensor; ValueError for another number of axes."""
        x = quantized(input, type(self).__name__)
        check_axes(x, self.axes, type(self).__name__)
        values = norm.instance_norm(
            x.values,
            x.q_scale(),
            x.q_zero_point(),
            self.weight,
            self.bias,
            self.eps,
            self.scale,
            self.zero_point,
        )
        return self._result(values)

    @classmethod
    def from_reference(cls, mod: Any, scale: float, zero_point: int) -> Self:
        return cls(
            *(mod.num_features, mod.weight, mod.bias, float(scale), int(zero_point)),
            *(mod.eps, mod.momentum, mod.affine, mod.track_running_stats),
        )


class InstanceNorm1d(_InstanceNorm):
    """``torch.nn.InstanceNorm1d`` on a QTensor (n, c, l); ``weight``, ``bias`` (c,) or None."""

    axes = 1


class InstanceNorm2d(_InstanceNorm):
    """``torch.nn.InstanceNorm2d`` on a QTensor (n, c, h, w); ``weight``, ``bias`` (c,) or None."""

    axes = 2


class InstanceNorm3d(_InstanceNorm):
    """``torch.nn.InstanceNorm3d`` on a QTensor (n, c, d, h, w); ``weight``, ``bias`` as 2d."""

    axes = 3
