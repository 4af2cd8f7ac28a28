"""Functions of torch that take a QTensor: those whose result needs no new scale."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lowbit.functional.int8 import activations, pool, resize
from lowbit.kernels import int8 as kernels
from lowbit.qtensor._qtensor import FUNCTIONS, QTensor

# torch.flatten(q, 1) is q.flatten(1).
SHAPE_FUNCTIONS = (
    "chunk",
    "clone",
    "dequantize",
    "detach",
    "flatten",
    "flip",
    "index_select",
    "int_repr",
    "movedim",
    "narrow",
    "numel",
    "permute",
    "q_per_channel_axis",
    "q_per_channel_scales",
    "q_per_channel_zero_points",
    "q_scale",
    "q_zero_point",
    "reshape",
    "select",
    "split",
    "squeeze",
    "t",
    "transpose",
    "unbind",
    "unflatten",
    "unsqueeze",
)


def cat(tensors: Sequence[QTensor], dim: int = 0) -> QTensor:
    """One after the other along ``dim``.

    ValueError unless all have one scale and zero point; along the axis of the channels each
    keeps its own.
    """
    first = tensors[0]
    along_channels = isinstance(first, QTensor) and first.axis == dim % max(first.ndim, 1)
    for q in tensors:
        if not isinstance(q, QTensor):
            raise TypeError(f"cat of a QTensor and a {type(q).__name__}: quantize it first")
        alike = (q.dtype, q.axis, q.qscheme()) == (first.dtype, first.axis, first.qscheme())
        if not (alike if along_channels else q.same_qparams(first)):
            raise ValueError(
                "cat of QTensors of several scales, zero points or dtypes needs one for the "
                "result: QFunctional.cat of lowbit.nn.quantized has it"
            )
    values = torch.cat([q.values for q in tensors], dim)
    if not along_channels:
        return first.with_values(values)
    scales = torch.cat([q.q_per_channel_scales() for q in tensors])
    zero_points = torch.cat([q.q_per_channel_zero_points() for q in tensors])
    return QTensor(values, scales, zero_points, first.axis)


def stack(tensors: Sequence[QTensor], dim: int = 0) -> QTensor:
    """Beside each other along a new ``dim``; ValueError unless scales and zero points are one."""
    return cat([q.unsqueeze(dim) if isinstance(q, QTensor) else q for q in tensors], dim)


def equal(a: Any, b: Any) -> bool:
    """``torch.equal``: the same integers with the same scale and zero point."""
    return isinstance(a, QTensor) and a.equal(b)


def allclose(a: Any, b: Any, *args: Any, **kwargs: Any) -> bool:
    """``torch.allclose`` of the real numbers."""
    return torch.allclose(*(_real(x) for x in (a, b)), *args, **kwargs)


def compare(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """A comparison of the real numbers."""
    return lambda a, b: function(_real(a), _real(b))


def _real(x: Any) -> Any:
    return x.dequantize() if isinstance(x, QTensor) else x


def relu(x: QTensor, inplace: bool = False) -> QTensor:
    return x.with_values(kernels.relu(x.values, x.q_zero_point()))


def clamp(x: QTensor, min: float | None = None, max: float | None = None) -> QTensor:
    return x.with_values(kernels.clamp(x.values, x.q_scale(), x.q_zero_point(), min, max))


def hardtanh(
    x: QTensor, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False
) -> QTensor:
    return clamp(x, min_val, max_val)


def relu6(x: QTensor, inplace: bool = False) -> QTensor:
    return clamp(x, 0.0, 6.0)


def leaky_relu(x: QTensor, negative_slope: float = 0.01, inplace: bool = False) -> QTensor:
    own = (x.q_scale(), x.q_zero_point())
    return x.with_values(activations.leaky_relu(x.values, *own, *own, negative_slope))


def sigmoid(x: QTensor) -> QTensor:
    qparams = activations.sigmoid_qparams(x.dtype)
    values = activations.sigmoid(x.values, x.q_scale(), x.q_zero_point(), *qparams)
    return QTensor(values, *qparams)


def hardsigmoid(x: QTensor, inplace: bool = False) -> QTensor:
    qparams = activations.sigmoid_qparams(x.dtype)
    values = activations.hardsigmoid(x.values, x.q_scale(), x.q_zero_point(), *qparams)
    return QTensor(values, *qparams)


def tanh(x: QTensor) -> QTensor:
    qparams = activations.tanh_qparams(x.dtype)
    values = activations.tanh(x.values, x.q_scale(), x.q_zero_point(), *qparams)
    return QTensor(values, *qparams)


def max_pool(axes: int) -> Callable[..., QTensor]:
    """``F.max_pool1d``, ``2d`` or ``3d``."""

    def function(
        x: QTensor,
        kernel_size: pool.Sizes,
        stride: pool.Sizes | None = None,
        padding: pool.Sizes = 0,
        dilation: pool.Sizes = 1,
        ceil_mode: bool = False,
        return_indices: bool = False,
    ) -> QTensor:
        if return_indices:
            max_pool_with_indices()
        x.q_scale()  # of channels, the greatest integer is not the greatest number
        args = (kernel_size, stride, padding, dilation, ceil_mode)
        if axes == 2:
            return x.with_values(kernels.max_pool2d(x.values, *args))
        return x.with_values(pool.max_pool(x.values, axes, *args))

    return function


def max_pool_with_indices(*args: Any, **kwargs: Any) -> Any:
    raise NotImplementedError("max_pool of a QTensor has no return_indices; dequantize() first")


def avg_pool(axes: int) -> Callable[..., QTensor]:
    """``F.avg_pool1d``, ``2d`` or ``3d``."""

    def function(x: QTensor, *args: Any, **kwargs: Any) -> QTensor:
        if axes == 2:
            return x.with_values(kernels.avg_pool2d(x.values, x.q_zero_point(), *args, **kwargs))
        return x.with_values(pool.avg_pool(x.values, x.q_zero_point(), axes, *args, **kwargs))

    return function


def adaptive_avg_pool(axes: int) -> Callable[..., QTensor]:
    """``F.adaptive_avg_pool1d``, ``2d`` or ``3d``."""

    def function(x: QTensor, output_size: Any) -> QTensor:
        if axes == 2:
            values = kernels.adaptive_avg_pool2d(x.values, x.q_zero_point(), output_size)
        else:
            values = pool.adaptive_avg_pool(x.values, x.q_zero_point(), axes, output_size)
        return x.with_values(values)

    return function


def interpolate(
    x: QTensor,
    size: Any = None,
    scale_factor: Any = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
    recompute_scale_factor: bool | None = None,
    antialias: bool = False,
) -> QTensor:
    if recompute_scale_factor or antialias:
        raise NotImplementedError(
            "interpolate of a QTensor has no recompute_scale_factor and no antialias"
        )
    args = (x.values, x.q_zero_point(), size, scale_factor, mode, align_corners)
    return x.with_values(resize.interpolate(*args))


def dropout(x: QTensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> QTensor:
    if training:
        raise RuntimeError("dropout of a QTensor while training: call eval() on the module")
    return x


def fill() -> None:
    """Tell ``QTensor`` of the functions of torch that it knows."""
    for name in SHAPE_FUNCTIONS:
        if hasattr(torch, name):

            def method(q: QTensor, *args: Any, _name: str = name, **kwargs: Any) -> Any:
                return getattr(q, _name)(*args, **kwargs)

            FUNCTIONS[getattr(torch, name)] = method
    functions: dict[Any, Callable[..., Any]] = {
        **dict.fromkeys((torch.cat, torch.concat, torch.concatenate), cat),
        torch.stack: stack,
        torch.equal: equal,
        torch.allclose: allclose,
        **dict.fromkeys((torch.relu, F.relu), relu),
        **dict.fromkeys((torch.clamp, torch.clip), clamp),
        F.hardtanh: hardtanh,
        F.relu6: relu6,
        F.leaky_relu: leaky_relu,
        **dict.fromkeys((torch.sigmoid, F.sigmoid), sigmoid),
        F.hardsigmoid: hardsigmoid,
        **dict.fromkeys((torch.tanh, F.tanh), tanh),
        F.max_pool1d: max_pool(1),
        F.max_pool2d: max_pool(2),
        F.max_pool3d: max_pool(3),
        F.avg_pool1d: avg_pool(1),
        F.avg_pool2d: avg_pool(2),
        F.avg_pool3d: avg_pool(3),
        F.adaptive_avg_pool1d: adaptive_avg_pool(1),
        F.adaptive_avg_pool2d: adaptive_avg_pool(2),
        F.adaptive_avg_pool3d: adaptive_avg_pool(3),
        F.interpolate: interpolate,
        **dict.fromkeys((F.dropout, F.dropout1d, F.dropout2d, F.dropout3d), dropout),
    }
    FUNCTIONS.update(functions)
    for name in ("max_pool1d", "max_pool2d", "max_pool3d"):
        FUNCTIONS[getattr(F, f"{name}_with_indices")] = max_pool_with_indices
    for name in ("eq", "ne", "lt", "le", "gt", "ge"):
        # torch.eq(q, 0), and what a Tensor on the left of == calls.
        for function in (getattr(torch, name), getattr(Tensor, name)):
            FUNCTIONS[function] = compare(function)
