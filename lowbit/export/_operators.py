"""Operators that int8, float and binary layers have in common: windows, resizing, norms."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lowbit.export._recorder import Recorder
from lowbit.functional.int8.pool import each_axis


def convolved(
    g: Recorder,
    x: Any,
    weight: Any,
    bias: Any,
    kernel: Sequence[int],
    stride: Any = 1,
    pads: Sequence[int] | None = None,
    dilation: Any = 1,
    groups: int = 1,
) -> str:
    """Conv of real numbers; ``pads`` are those before all axes, then those after (None: none)."""
    axes = len(kernel)
    return g.node(
        "Conv",
        *(x, weight, bias),
        kernel_shape=list(kernel),
        strides=each_axis(stride, axes),
        pads=[0] * (2 * axes) if pads is None else list(pads),
        dilations=each_axis(dilation, axes),
        group=groups,
    )


def transposed(
    g: Recorder,
    x: Any,
    weight: Any,
    bias: Any,
    kernel: Sequence[int],
    stride: Any,
    padding: Any,
    output_padding: Any,
    dilation: Any,
    groups: int,
) -> str:
    """ConvTranspose of real numbers."""
    axes = len(kernel)
    return g.node(
        "ConvTranspose",
        *(x, weight, bias),
        kernel_shape=list(kernel),
        strides=each_axis(stride, axes),
        pads=each_axis(padding, axes) * 2,
        output_padding=each_axis(output_padding, axes),
        dilations=each_axis(dilation, axes),
        group=groups,
    )


def max_pooled(
    g: Recorder,
    x: Any,
    axes: int,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
) -> str:
    """MaxPool of any numbers, over the last ``axes`` axes."""
    windows = _windows(axes, kernel_size, stride, padding, ceil_mode)
    return g.node("MaxPool", x, dilations=each_axis(dilation, axes), **windows)


def averaged(
    g: Recorder,
    x: Any,
    axes: int,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> str:
    """AveragePool of real numbers, over the last ``axes`` axes."""
    if divisor_override is not None:
        raise NotImplementedError("AveragePool has no divisor_override: leave it out")
    windows = _windows(axes, kernel_size, stride, padding, ceil_mode)
    return g.node("AveragePool", x, count_include_pad=int(count_include_pad), **windows)


def _windows(
    axes: int, kernel_size: Any, stride: Any, padding: Any, ceil_mode: bool
) -> dict[str, Any]:
    kernel = each_axis(kernel_size, axes)
    return {
        "kernel_shape": kernel,
        "strides": kernel if stride in (None, []) else each_axis(stride, axes),
        "pads": each_axis(padding, axes) * 2,
        "ceil_mode": int(ceil_mode),
    }


def adaptive_mean(g: Recorder, x: Any, sizes: Sequence[int], outputs: Sequence[int]) -> str:
    """The mean of windows that divide real numbers (n, c, *sizes) into ``outputs`` parts."""
    if all(n == 1 for n in outputs):
        return g.node("GlobalAveragePool", x)
    if any(size % n for size, n in zip(sizes, outputs, strict=True)):
        raise NotImplementedError(
            f"adaptive_avg_pool of {tuple(sizes)} to {tuple(outputs)} has windows of several "
            "sizes, which ONNX has not: choose sizes that divide"
        )
    windows = [size // n for size, n in zip(sizes, outputs, strict=True)]
    return g.node("AveragePool", x, kernel_shape=windows, strides=windows)


def resized(
    g: Recorder, y: Tensor, x: Any, size: Any, scale_factor: Any, mode: str, align_corners: Any
) -> str:
    """``torch.nn.functional.interpolate`` of the axes of places, as it places its samples."""
    axes = list(range(2, y.ndim))
    if size is not None:
        scales, sizes = None, torch.tensor(list(y.shape[2:]))
    else:
        factors = [scale_factor] if isinstance(scale_factor, (int, float)) else list(scale_factor)
        factors = factors * (len(axes) // len(factors))
        scales, sizes = torch.tensor(factors, dtype=torch.float32), None
    place = "align_corners" if align_corners else "half_pixel"
    return g.node(
        "Resize",
        x,
        None,
        None if scales is None else g.constant_of(scales, "scales"),
        None if sizes is None else g.constant_of(sizes, "sizes"),
        axes=axes,
        mode="nearest" if mode == "nearest" else "linear",
        coordinate_transformation_mode="asymmetric" if mode == "nearest" else place,
        nearest_mode="floor" if mode == "nearest" else None,
    )


def affine(g: Recorder, channels: int, weight: Any, bias: Any) -> tuple[Any, Any]:
    """Weight and bias, or ones and zeros in their place."""
    if weight is None:
        weight = g.constant_of(torch.ones(channels), "weight")
    return weight, g.constant_of(torch.zeros(channels), "bias") if bias is None else bias


def layer_normalized(
    g: Recorder, x: Any, shape: Sequence[int], weight: Any, bias: Any, eps: float
) -> str:
    if weight is None:
        weight = g.constant_of(torch.ones(list(shape)), "weight")
    return g.node("LayerNormalization", x, weight, bias, axis=-len(shape), epsilon=eps)


def bags(
    g: Recorder, rows: str, indices: Tensor, mode: str, weights: Any, padding_idx: int | None
) -> str:
    """Rows of a table (rows, width) reduced over bags of one size: indices (bags, size)."""
    check_bags(indices, weights, padding_idx)
    return reduced(g, g.node("Gather", rows, indices, axis=0), mode)


def check_bags(indices: Tensor, weights: Any, padding_idx: int | None) -> None:
    """Refuse bags that no operator reduces."""
    if indices.ndim != 2 or weights is not None or padding_idx is not None:
        raise NotImplementedError(
            "an exported EmbeddingBag takes indices (bags, size) without weights or padding_idx"
        )


def reduced(g: Recorder, rows: str, mode: str) -> str:
    """Rows (bags, size, width) reduced to one for each bag."""
    op = {"sum": "ReduceSum", "mean": "ReduceMean", "max": "ReduceMax"}[mode]
    return g.node(op, rows, g.constant_of(torch.tensor([1]), "axes"), keepdims=0)
