"""Functions of quantized tensors: QTensor in, QTensor out.

Names and arguments are those of ``torch.ao.nn.quantized.functional``. Where a function takes no
scale and zero point, those of the input stay, if nothing else is said. All raise TypeError for
inputs that are not QTensors.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lowbit.functional.int8 import activations, plain_dtype, pool, resize
from lowbit.kernels import int8 as kernels
from lowbit.nn.quantized._inputs import check_axes, described, quantized
from lowbit.qtensor import QTensor

Sizes = int | tuple[int, ...] | list[int]

__all__ = [
    "adaptive_avg_pool2d",
    "adaptive_avg_pool3d",
    "avg_pool2d",
    "avg_pool3d",
    "celu",
    "clamp",
    "conv1d",
    "conv2d",
    "conv3d",
    "elu",
    "hardsigmoid",
    "hardswish",
    "hardtanh",
    "interpolate",
    "leaky_relu",
    "linear",
    "max_pool1d",
    "max_pool2d",
    "relu",
    "relu6",
    "sigmoid",
    "softmax",
    "threshold",
    "upsample",
    "upsample_bilinear",
    "upsample_nearest",
]


# Linear layers and convolutions.


def linear(
    input: QTensor,
    weight: QTensor,
    bias: Tensor | None = None,
    scale: float | None = None,
    zero_point: int | None = None,
) -> QTensor:
    """x times the transpose of the weight, plus bias: (..., k) and (o, k) -> (..., o).

    ``input`` uint8, ``weight`` int8 with one scale or o, ``bias`` real (o,). The output is uint8
    with ``scale`` and ``zero_point``, or those of the input where they are None.

    Raises ValueError for a vector, for shapes that do not fit and a zero point outside 0 .. 255.
    """
    input, weight = _operands("linear", input, weight)
    if input.dim() < 2:
        raise ValueError(
            f"linear takes an input (n, ..., k) of at least two axes, not {tuple(input.shape)}: "
            "input.unsqueeze(0) has them"
        )
    scale = input.q_scale() if scale is None else scale
    zero_point = input.q_zero_point() if zero_point is None else zero_point
    values = kernels.linear(
        input.values,
        input.q_scale(),
        input.q_zero_point(),
        weight.values,
        weight.scale,
        weight.zero_point,
        None if bias is None else bias.float(),
        scale,
        zero_point,
        torch.uint8,
    )
    return QTensor(values, scale, zero_point)


def conv1d(
    input: QTensor,
    weight: QTensor,
    bias: Tensor | None,
    stride: Sizes = 1,
    padding: Sizes = 0,
    dilation: Sizes = 1,
    groups: int = 1,
    padding_mode: str = "zeros",
    scale: float = 1.0,
    zero_point: int = 0,
    dtype: torch.dtype | str = torch.uint8,
) -> QTensor:
    """Convolution of (n, c, l) with a weight (o, c / groups, k); see ``conv2d``."""
    arguments = (input, weight, bias, stride, padding, dilation, groups, padding_mode)
    return _conv(1, *arguments, scale, zero_point, dtype)


def conv2d(
    input: QTensor,
    weight: QTensor,
    bias: Tensor | None,
    stride: Sizes = 1,
    padding: Sizes = 0,
    dilation: Sizes = 1,
    groups: int = 1,
    padding_mode: str = "zeros",
    scale: float = 1.0,
    zero_point: int = 0,
    dtype: torch.dtype | str = torch.uint8,
) -> QTensor:
    """Convolution of (n, c, h, w) with a weight (o, c / groups, kh, kw) -> (n, o, h', w').

    ``input`` uint8, ``weight`` int8 with one scale or o, ``bias`` real (o,). Around the image is a
    real 0. The output has ``scale``, ``zero_point`` and ``dtype``, uint8 or int8.

    Raises NotImplementedError for a ``padding_mode`` other than "zeros", ValueError for shapes,
    groups, a ``padding`` in words, and scales that do not fit.
    """
    arguments = (input, weight, bias, stride, padding, dilation, groups, padding_mode)
    return _conv(2, *arguments, scale, zero_point, dtype)


def conv3d(
    input: QTensor,
    weight: QTensor,
    bias: Tensor | None,
    stride: Sizes = 1,
    padding: Sizes = 0,
    dilation: Sizes = 1,
    groups: int = 1,
    padding_mode: str = "zeros",
    scale: float = 1.0,
    zero_point: int = 0,
    dtype: torch.dtype | str = torch.uint8,
) -> QTensor:
    """Convolution of (n, c, d, h, w) with a weight (o, c / groups, kd, kh, kw); see ``conv2d``."""
    arguments = (input, weight, bias, stride, padding, dilation, groups, padding_mode)
    return _conv(3, *arguments, scale, zero_point, dtype)


def _conv(
    axes: int,
    input: QTensor,
    weight: QTensor,
    bias: Tensor | None,
    stride: Sizes,
    padding: Sizes,
    dilation: Sizes,
    groups: int,
    padding_mode: str,
    scale: float,
    zero_point: int,
    dtype: torch.dtype | str,
) -> QTensor:
    name = f"conv{axes}d"
    if padding_mode != "zeros":
        raise NotImplementedError(
            f"{name} has padding_mode 'zeros' only, not {padding_mode!r}: pad the input first"
        )
    input, weight = _operands(name, input, weight)
    check_axes(input, axes, name)
    values = kernels.conv(
        input.values,
        input.q_scale(),
        input.q_zero_point(),
        weight.values,
        weight.scale,
        weight.zero_point,
        None if bias is None else bias.float(),
        stride,
        padding,
        dilation,
        groups,
        scale,
        zero_point,
        plain_dtype(dtype),
    )
    return QTensor(values, scale, zero_point)


def _operands(name: str, input: Any, weight: Any) -> tuple[QTensor, QTensor]:
    input = quantized(input, name)
    if input.dtype != torch.uint8:
        raise TypeError(
            f"{name} takes an input of uint8, not {input.dtype}: quantize to uint8; "
            "the modules take int8 as well"
        )
    if not isinstance(weight, QTensor) or weight.dtype != torch.int8:
        raise TypeError(f"{name} takes a weight of quantized int8, not {described(weight)}")
    if weight.axis not in (None, 0):
        raise ValueError(
            f"{name} takes a weight with scales along axis 0, its output channels, not along "
            f"{weight.axis}"
        )
    return input, weight


# Pooling and resizing.


def max_pool1d(
    input: Any,
    kernel_size: Sizes,
    stride: Sizes | None = None,
    padding: Sizes = 0,
    dilation: Sizes = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:
    """The greatest of each window of (n, c, l) or (c, l); see ``max_pool2d``."""
    sizes = (kernel_size, stride, padding, dilation)
    return _max_pool(1, input, *sizes, ceil_mode, return_indices)


def max_pool2d(
    input: Any,
    kernel_size: Sizes,
    stride: Sizes | None = None,
    padding: Sizes = 0,
    dilation: Sizes = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:
    """The greatest of each window of (n, c, h, w) or (c, h, w); real tensors as torch does it.

    NotImplementedError for ``return_indices``.
    """
    sizes = (kernel_size, stride, padding, dilation)
    return _max_pool(2, input, *sizes, ceil_mode, return_indices)


def _max_pool(
    axes: int,
    input: Any,
    kernel_size: Sizes,
    stride: Sizes | None,
    padding: Sizes,
    dilation: Sizes,
    ceil_mode: bool,
    return_indices: bool,
) -> Any:
    if return_indices:
        raise NotImplementedError(
            f"max_pool{axes}d of quantized tensors gives no indices: return_indices must be False"
        )
    if isinstance(input, Tensor):
        function: Callable[..., Tensor] = (F.max_pool1d, F.max_pool2d)[axes - 1]
        return function(input, kernel_size, stride, padding, dilation, ceil_mode)
    x = quantized(input, f"max_pool{axes}d")
    sizes = (kernel_size, stride or None, padding, dilation)
    if axes == 2:
        return x.with_values(kernels.max_pool2d(x.values, *sizes, ceil_mode))
    return x.with_values(pool.max_pool(x.values, axes, *sizes, ceil_mode))


def avg_pool2d(
    input: QTensor,
    kernel_size: Sizes,
    stride: Sizes | None = None,
    padding: Sizes = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> QTensor:
    """The mean of each window of (n, c, h, w) or (c, h, w), rounded half to even.

    round(mean of the integers minus the zero point) + zero point; padding counts as a real 0.
    ValueError for a ``divisor_override`` of 0.
    """
    windows = (kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override)
    return _avg_pool(2, input, *windows)


def avg_pool3d(
    input: QTensor,
    kernel_size: Sizes,
    stride: Sizes | None = None,
    padding: Sizes = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> QTensor:
    """The mean of each window of (n, c, d, h, w) or (c, d, h, w); see ``avg_pool2d``."""
    windows = (kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override)
    return _avg_pool(3, input, *windows)


def _avg_pool(
    axes: int, input: QTensor, kernel_size: Sizes, stride: Sizes | None, *rest: Any
) -> QTensor:
    x = quantized(input, f"avg_pool{axes}d")
    sizes = (kernel_size, stride or None, *rest)
    if axes == 2:
        return x.with_values(kernels.avg_pool2d(x.values, x.q_zero_point(), *sizes))
    return x.with_values(pool.avg_pool(x.values, x.q_zero_point(), axes, *sizes))


def adaptive_avg_pool2d(input: QTensor, output_size: Any) -> QTensor:
    """The means of ``output_size`` windows that divide (n, c, h, w) or (c, h, w); None keeps."""
    return _adaptive_avg_pool(2, input, output_size)


def adaptive_avg_pool3d(input: QTensor, output_size: Any) -> QTensor:
    """The means of ``output_size`` windows that divide (n, c, d, h, w) or (c, d, h, w)."""
    return _adaptive_avg_pool(3, input, output_size)


def _adaptive_avg_pool(axes: int, input: QTensor, output_size: Any) -> QTensor:
    x = quantized(input, f"adaptive_avg_pool{axes}d")
    size = tuple(output_size) if isinstance(output_size, Sequence) else output_size
    if axes == 2:
        return x.with_values(kernels.adaptive_avg_pool2d(x.values, x.q_zero_point(), size))
    return x.with_values(pool.adaptive_avg_pool(x.values, x.q_zero_point(), axes, size))


def interpolate(
    input: QTensor,
    size: Any = None,
    scale_factor: Any = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
) -> QTensor:
    """(n, c, h, w), or (n, c, d, h, w) for nearest, to ``size`` or times ``scale_factor``.

    ``mode``: "nearest" or "bilinear", NotImplementedError for others. The arguments mean what
    they do in ``torch.nn.functional.interpolate``.
    """
    x = quantized(input, "interpolate")
    where = (size, scale_factor, mode, align_corners)
    return x.with_values(resize.interpolate(x.values, x.q_zero_point(), *where))


def upsample(
    input: QTensor,
    size: Any = None,
    scale_factor: Any = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
) -> QTensor:
    """``interpolate``, under its old name; warns."""
    _old_name("upsample", "")
    return interpolate(input, size, scale_factor, mode, align_corners)


def upsample_bilinear(input: QTensor, size: Any = None, scale_factor: Any = None) -> QTensor:
    """``interpolate`` with mode "bilinear" and align_corners; warns."""
    _old_name("upsample_bilinear", " with mode='bilinear', align_corners=True")
    return interpolate(input, size, scale_factor, "bilinear", True)


def upsample_nearest(input: QTensor, size: Any = None, scale_factor: Any = None) -> QTensor:
    """``interpolate`` with mode "nearest"; warns."""
    _old_name("upsample_nearest", "")
    return interpolate(input, size, scale_factor, "nearest")


def _old_name(name: str, how: str) -> None:
    warnings.warn(f"{name} is the old name of interpolate{how}: call that", stacklevel=3)


# Activations that keep scale and zero point.


def relu(input: QTensor, inplace: bool = False) -> QTensor:
    """max(x, 0): no integer below the zero point."""
    x = quantized(input, "relu")
    return _kept(x, kernels.relu(x.values, x.q_zero_point()), inplace)


def relu6(input: QTensor, inplace: bool = False) -> QTensor:
    """min(max(x, 0), 6), with 6 rounded to an integer."""
    x = quantized(input, "relu6")
    return _kept(x, kernels.clamp(x.values, x.q_scale(), x.q_zero_point(), 0.0, 6.0), inplace)


def hardtanh(
    input: QTensor, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False
) -> QTensor:
    """x clamped to the real numbers ``min_val`` and ``max_val``, each rounded to an integer."""
    x = quantized(input, "hardtanh")
    limits = (min_val, max_val)
    return _kept(x, kernels.clamp(x.values, x.q_scale(), x.q_zero_point(), *limits), inplace)


def clamp(input: QTensor, min_: float, max_: float) -> QTensor:
    """x clamped to the real numbers ``min_`` and ``max_``, each rounded to an integer."""
    x = quantized(input, "clamp")
    return x.with_values(kernels.clamp(x.values, x.q_scale(), x.q_zero_point(), min_, max_))


def threshold(input: QTensor, threshold: float, value: float) -> QTensor:
    """x where x > ``threshold``, ``value`` elsewhere. ValueError where one of them is None."""
    x = quantized(input, "threshold")
    for name, number in (("threshold", threshold), ("value", value)):
        if number is None:
            raise ValueError(f"threshold takes a number as its {name}, not None")
    own = (x.q_scale(), x.q_zero_point())
    return x.with_values(activations.threshold(x.values, *own, threshold, value))


def _kept(x: QTensor, values: Tensor, inplace: bool) -> QTensor:
    if not inplace:
        return x.with_values(values)
    x.values.copy_(values)
    return x


# Activations that are quantized anew, with ``scale`` and ``zero_point``.


def leaky_relu(
    input: QTensor,
    negative_slope: float = 0.01,
    inplace: bool = False,
    scale: float | None = None,
    zero_point: int | None = None,
) -> QTensor:
    """x where x > 0, negative_slope * x elsewhere; those of the input where either is None.

    ValueError for ``inplace`` with another scale.
    """
    x = quantized(input, "leaky_relu")
    own = (x.q_scale(), x.q_zero_point())
    if scale is None or zero_point is None:
        return _kept(x, activations.leaky_relu(x.values, *own, *own, negative_slope), inplace)
    if inplace:
        raise ValueError("leaky_relu in place keeps the input's scale: give none, or inplace=False")
    values = activations.leaky_relu(x.values, *own, scale, zero_point, negative_slope)
    return QTensor(values, scale, zero_point)


def hardsigmoid(input: QTensor, inplace: bool = False) -> QTensor:
    """min(max(x + 3, 0), 6) / 6, on a scale of its own: all integers of the dtype span [0, 1).

    ``inplace`` writes the integers over those of the input, whose scale then says nothing.
    """
    x = quantized(input, "hardsigmoid")
    qparams = activations.sigmoid_qparams(x.dtype)
    values = activations.hardsigmoid(x.values, x.q_scale(), x.q_zero_point(), *qparams)
    return QTensor(x.values.copy_(values) if inplace else values, *qparams)


def hardswish(input: QTensor, scale: float, zero_point: int) -> QTensor:
    """x * min(max(x + 3, 0), 6) / 6."""
    return _anew("hardswish", activations.hardswish, input, scale, zero_point)


def sigmoid(input: QTensor, scale: float, zero_point: int) -> QTensor:
    """1 / (1 + exp(-x))."""
    return _anew("sigmoid", activations.sigmoid, input, scale, zero_point)


def softmax(input: QTensor, dim: int, scale: float, zero_point: int) -> QTensor:
    """exp(x) over its sum along ``dim``."""
    return _anew("softmax", activations.softmax, input, scale, zero_point, dim)


def elu(input: QTensor, scale: float, zero_point: int, alpha: float = 1.0) -> QTensor:
    """x where x > 0, alpha * (exp(x) - 1) elsewhere."""
    return _anew("elu", activations.elu, input, scale, zero_point, alpha)


def celu(input: QTensor, scale: float, zero_point: int, alpha: float = 1.0) -> QTensor:
    """max(x, 0) + min(0, alpha * (exp(x / alpha) - 1))."""
    return _anew("celu", activations.celu, input, scale, zero_point, alpha)


def _anew(
    name: str,
    function: Callable[..., Tensor],
    input: QTensor,
    scale: float,
    zero_point: int,
    *arguments: float,
) -> QTensor:
    x = quantized(input, name)
    own = (x.q_scale(), x.q_zero_point())
    return QTensor(function(x.values, *own, scale, zero_point, *arguments), scale, zero_point)
