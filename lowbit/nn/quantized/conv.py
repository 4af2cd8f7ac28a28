"""Convolutions on quantized tensors, of one to three spatial axes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lowbit.kernels import int8 as kernels
from lowbit.nn.quantized._inputs import activation, check_axes, quantized
from lowbit.nn.quantized._observed import (
    observed,
    output_dtype,
    output_limits,
    output_qparams,
    quantized_weight,
)
from lowbit.nn.quantized._weighted import WeightedModule
from lowbit.qtensor import QTensor

Sizes = int | Sequence[int]


class ConvNd(WeightedModule):
    """What convolutions share; ``Conv1d``, ``Conv2d`` and ``Conv3d`` say how many axes."""

    axes: ClassVar[int]
    float_type: ClassVar[type[nn.Module]]
    transposed = False
    padding_modes: ClassVar[tuple[str, ...]] = ("zeros", "reflect")
    _relu = False

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Sizes,
        stride: Sizes = 1,
        padding: Sizes = 0,
        dilation: Sizes = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        sizes = (kernel_size, stride, padding, dilation)
        self._init_layout(in_channels, out_channels, *sizes, 0, groups, bias, padding_mode, device)

    def _init_layout(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Sizes,
        stride: Sizes,
        padding: Sizes,
        dilation: Sizes,
        output_padding: Sizes,
        groups: int,
        bias: bool,
        padding_mode: str,
        device: Any,
    ) -> None:
        name = type(self).__name__
        if min(in_channels, out_channels, groups) < 1:
            raise ValueError(
                f"{name} has at least one channel in, one out and one group, not {in_channels}, "
                f"{out_channels} and {groups}"
            )
        for channels in (in_channels, out_channels):
            if channels % groups:
                raise ValueError(f"{name}: {groups} groups do not divide {channels} channels")
        if padding_mode not in self.padding_modes:
            raise ValueError(
                f"{name} has padding_mode {' or '.join(map(repr, self.padding_modes))}, not "
                f"{padding_mode!r}: pad the float input before it is quantized"
            )
        self.in_channels, self.out_channels = in_channels, out_channels
        self.kernel_size = self._each("kernel_size", kernel_size)
        self.stride = self._each("stride", stride)
        self.padding = self._each("padding", padding)
        self.dilation = self._each("dilation", dilation)
        self.output_padding = self._each("output_padding", output_padding)
        self.groups = groups
        self.padding_mode = padding_mode
        leading = (out_channels, in_channels // groups)
        if self.transposed:
            leading = (in_channels, out_channels // groups)
        self._init_weight((*leading, *self.kernel_size), out_channels, bias, device)

    def _each(self, name: str, value: Sizes) -> tuple[int, ...]:
        if isinstance(value, int):
            return (value,) * self.axes
        if isinstance(value, str) or len(value) not in (1, self.axes):
            raise ValueError(
                f"{name} of {type(self).__name__} is a number or {self.axes}, not {value!r}"
            )
        return tuple(value) * (self.axes if len(value) == 1 else 1)

    def _input(self, input: QTensor) -> tuple[Tensor, float, int]:
        name = type(self).__name__
        values, scale, zero_point = activation(input, name)
        check_axes(input, self.axes, name)
        return values, scale, zero_point

    def forward(self, input: QTensor) -> QTensor:
        """QTensor (n, in_channels, ...) -> QTensor (n, out_channels, ...)."""
        return self._convolve(input, None)

    def _convolve(self, input: QTensor, residual: QTensor | None) -> Any:
        values, x_scale, x_zero_point = self._input(input)
        padding = self.padding
        if self.padding_mode != "zeros":
            values, padding = _padded(values, padding, self.padding_mode), (0,) * self.axes
        scale, zero_point = self._scale, self._zero_point
        added: tuple[Any, float, int] = (None, 1.0, 0)
        if residual is not None:
            added = (residual.values, residual.q_scale(), residual.q_zero_point())
        values = kernels.conv(
            values,
            x_scale,
            x_zero_point,
            self._weight,
            self._kernel_scale,
            self._kernel_zero_point,
            self._bias,
            self.stride,
            padding,
            self.dilation,
            self.groups,
            scale,
            zero_point,
            self.out_dtype,
            self._relu,
            *added,
        )
        if self.out_dtype == torch.float32:
            return values
        return self._limited(QTensor(values, scale, zero_point))

    def extra_repr(self) -> str:
        shown = (
            f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, "
            f"stride={self.stride}, scale={self.scale}, zero_point={self.zero_point}"
        )
        for name, usual in (("padding", 0), ("dilation", 1), ("output_padding", 0)):
            value = getattr(self, name)
            if value != (usual,) * self.axes:
                shown += f", {name}={value}"
        if self.groups != 1:
            shown += f", groups={self.groups}"
        if self.padding_mode != "zeros":
            shown += f", padding_mode={self.padding_mode!r}"
        return shown + (", bias=False" if self._bias is None else "")

    @classmethod
    def _like(cls, mod: Any) -> Self:
        """With the layout of a float convolution, or a reference one."""
        if isinstance(mod.padding, str):
            raise ValueError(
                f"{cls.__name__} takes padding in numbers, not {mod.padding!r}: give the float "
                "convolution the number that it stands for"
            )
        return cls(
            *(mod.in_channels, mod.out_channels, mod.kernel_size, mod.stride, mod.padding),
            *(mod.dilation, mod.groups, mod.bias is not None, mod.padding_mode),
        )

    @classmethod
    def from_float(cls, mod: nn.Module, use_precomputed_fake_quant: bool = False) -> Self:
        """Of an observed float convolution, or one trained with fake quantization.

        Weight and observers as ``Linear.from_float``, with its errors. Where nothing observed the
        output, its scale is 1 and its zero point 0.
        """
        parts = observed(mod, (cls.float_type,), cls.__name__, relu=cls._relu)
        qconv = cls._like(parts.layer)
        weight_observer = parts.weight_observer
        if cls.channel_axis:
            # A fake quantizer has an observer inside, which looks along an axis as well.
            inside = getattr(weight_observer, "activation_post_process", weight_observer)
            for one in (weight_observer, inside):
                if hasattr(one, "ch_axis"):
                    one.ch_axis = cls.channel_axis
        weight = quantized_weight(
            parts.weight, weight_observer, observe=not use_precomputed_fake_quant
        )
        qconv.set_weight_bias(weight, None if parts.bias is None else parts.bias.clone())
        dtype = None if parts.output is None else output_dtype(parts.output)
        if dtype is not None:
            qconv.out_dtype = dtype
            qconv.scale, qconv.zero_point = output_qparams(parts.output, cls.__name__)
            qconv.limits = output_limits(parts.output)
        return qconv

    @classmethod
    def from_reference(cls, ref_qconv: Any, output_scale: float, output_zero_point: int) -> Self:
        """Of a reference layer: a float one whose ``get_quantized_weight()`` has the weight."""
        qconv = cls._like(ref_qconv)
        qconv.set_weight_bias(ref_qconv.get_quantized_weight(), ref_qconv.bias)
        qconv.scale, qconv.zero_point = output_scale, output_zero_point
        return qconv


def _padded(values: Tensor, padding: Sequence[int], mode: str) -> Tensor:
    """Integers with ``torch.nn.functional.pad`` around them, which knows no integers."""
    sides = [size for size in reversed(padding) for _ in range(2)]
    return F.pad(values.to(torch.float32), sides, mode=mode).to(values.dtype)


class Conv1d(ConvNd):
    """``torch.nn.Conv1d`` in int8: QTensor (n, c, l) -> QTensor (n, o, l'); see ``Conv2d``."""

    axes, float_type = 1, nn.Conv1d


class Conv2d(ConvNd):
    """``torch.nn.Conv2d`` in int8: QTensor (n, c, h, w) -> QTensor (n, o, h', w').

    ``weight()`` int8 (o, c / groups, kh, kw) with one scale or o, zeros at first; ``bias()``
    float32 or None. The sums are exact; they are quantized once, with ``scale`` and
    ``zero_point``. The input is uint8 or int8, fastest uint8 and channels last, which is how the
    output comes. ``padding_mode``: "zeros" or "reflect"; ``dtype`` is not used.

    >>> from lowbit.qtensor import quantize_per_tensor
    >>> m = Conv2d(16, 33, (3, 5), stride=(2, 1), padding=(4, 2), dilation=(3, 1))
    >>> m(quantize_per_tensor(torch.randn(20, 16, 5, 10), 1.0, 0, "quint8")).size()
    torch.Size([20, 33, 4, 10])
    """

    axes, float_type = 2, nn.Conv2d


class Conv3d(ConvNd):
    """``torch.nn.Conv3d`` in int8: (n, c, d, h, w) -> (n, o, d', h', w'); see ``Conv2d``."""

    axes, float_type = 3, nn.Conv3d


class ConvReLU1d(Conv1d):
    """``Conv1d`` and a ReLU in one; ``from_float`` takes the sequence of both."""

    _relu = True


class ConvReLU2d(Conv2d):
    """``Conv2d`` and a ReLU in one; ``from_float`` takes the sequence of both."""

    _relu = True


class ConvReLU3d(Conv3d):
    """``Conv3d`` and a ReLU in one; ``from_float`` takes the sequence of both."""

    _relu = True


class ConvAdd2d(Conv2d):
    """``Conv2d`` plus another QTensor of the output's shape, quantized once.

    ``from_float`` takes a float convolution whose ``activation_post_process`` saw the sum.
    """

    def forward(self, input: QTensor, extra_input: QTensor) -> QTensor:  # type: ignore[override]
        """QTensors (n, c, h, w) and (n, o, h', w') -> QTensor (n, o, h', w')."""
        return self._convolve(input, quantized(extra_input, type(self).__name__))


class ConvAddReLU2d(ConvAdd2d):
    """``ConvAdd2d`` and a ReLU in one."""

    _relu = True

    @classmethod
    def from_float(cls, mod: nn.Module, use_precomputed_fake_quant: bool = False) -> Self:
        """Of a float convolution whose ``activation_post_process`` saw the sum after the ReLU."""
        qconv = ConvAdd2d.from_float(mod, use_precomputed_fake_quant)
        qconv.__class__ = cls
        return qconv  # type: ignore[return-value]
