"""Convolutions on integers, of one to three spatial axes, and their transposes.

Around the image is the zero point of x: a real 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lowbit.functional.int8.epilogue import (
    check_operands,
    check_residual,
    check_scales,
    finish,
    real_sums,
)
from lowbit.functional.int8.linear import centred_weight


def conv(
    x: Tensor,
    x_scale: float,
    x_zero_point: int,
    weight: Tensor,
    w_scales: float | Tensor,
    w_zero_points: int | Tensor | None = None,
    bias: Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
    out_scale: float = 1.0,
    out_zero_point: int = 0,
    out_dtype: torch.dtype = torch.uint8,
    relu: bool = False,
    residual: Tensor | None = None,
    residual_scale: float = 1.0,
    residual_zero_point: int = 0,
) -> Tensor:
    """x (n, c, ...) uint8 or int8, weight (o, c / groups, k ...) int8 -> (n, o, ...).

    Exact sums of (x - x_zero_point) * (weight - w_zero_points), then what ``epilogue`` says:
    integers come out, or real numbers in float32. ``w_scales`` and ``w_zero_points`` have one
    value or o; None is a zero point of 0. ``residual`` has the output's shape; in float32 it is
    added as it is.

    Raises TypeError for other dtypes, ValueError for shapes, scales and zero points that do not
    fit.

    >>> x, weight = torch.tensor([[[1, 2, 3]]], dtype=torch.uint8), torch.ones(1, 1, 2).char()
    >>> conv(x, 0.5, 1, weight, 1.0, padding=1, out_scale=0.5)
    tensor([[[0, 1, 3, 2]]], dtype=torch.uint8)
    """
    layout = ConvLayout.of(x.ndim - 2, stride, padding, dilation, groups)
    layout.check(x, weight, w_scales, w_zero_points, bias, out_dtype, residual)
    check_scales(
        *(x, x_scale, x_zero_point, out_scale, out_zero_point, out_dtype),
        *(residual, residual_scale, residual_zero_point),
    )
    sums = layout.convolve(x.double() - x_zero_point, centred_weight(weight, w_zero_points))
    return finish(
        real_sums(sums, x_scale, w_scales, bias, 1),
        *(out_scale, out_zero_point, out_dtype, relu),
        *(residual, residual_scale, residual_zero_point),
    )


def conv_transpose(
    x: Tensor,
    x_scale: float,
    x_zero_point: int,
    weight: Tensor,
    w_scales: float | Tensor,
    w_zero_points: int | Tensor | None = None,
    bias: Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0,
    output_padding: int | Sequence[int] = 0,
    groups: int = 1,
    dilation: int | Sequence[int] = 1,
    out_scale: float = 1.0,
    out_zero_point: int = 0,
    out_dtype: torch.dtype = torch.uint8,
    relu: bool = False,
) -> Tensor:
    """x (n, c, ...), weight (c, o / groups, k ...) int8 -> (n, o, ...): the transpose of ``conv``.

    ``w_scales`` and ``w_zero_points`` have one value or o / groups, along the weight's second axis.
    Otherwise, and in what it raises, as ``conv``.

    >>> x, weight = torch.tensor([[[2, 4]]], dtype=torch.uint8), torch.ones(1, 1, 2).char()
    >>> conv_transpose(x, 1.0, 0, weight, 1.0, stride=2)
    tensor([[[2, 2, 4, 4]]], dtype=torch.uint8)
    """
    layout = ConvLayout.of(x.ndim - 2, stride, padding, dilation, groups, output_padding)
    layout.check(x, weight, w_scales, w_zero_points, bias, out_dtype, None)
    check_scales(
        *(x, x_scale, x_zero_point, out_scale, out_zero_point, out_dtype, None, 1.0, 0),
    )
    centred = centred_weight(weight, w_zero_points, axis=1)
    sums = layout.convolve(x.double() - x_zero_point, centred)
    if isinstance(w_scales, Tensor) and w_scales.numel() > 1:
        w_scales = w_scales.repeat(groups)
    y = real_sums(sums, x_scale, w_scales, bias, 1)
    return finish(y, out_scale, out_zero_point, out_dtype, relu)


@dataclass(frozen=True)
class ConvLayout:
    """Where the windows of a convolution lie, one number for each spatial axis.

    ``output_padding`` is that of a transposed convolution, or None.
    """

    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int
    output_padding: tuple[int, ...] | None = None

    @classmethod
    def of(
        cls,
        dims: int,
        stride: int | Sequence[int],
        padding: int | Sequence[int],
        dilation: int | Sequence[int],
        groups: int,
        output_padding: int | Sequence[int] | None = None,
    ) -> ConvLayout:
        """Of numbers, each for all spatial axes, or sequences of one for each."""
        if dims not in (1, 2, 3):
            raise ValueError(
                f"a convolution takes x (n, c, ...) with one to three spatial axes, not {dims}"
            )
        return cls(
            _each("stride", stride, dims, 1),
            _each("padding", padding, dims, 0),
            _each("dilation", dilation, dims, 1),
            groups,
            None if output_padding is None else _each("output_padding", output_padding, dims, 0),
        )

    @property
    def transposed(self) -> bool:
        return self.output_padding is not None

    def convolve(self, x: Tensor, weight: Tensor) -> Tensor:
        """The convolution of real tensors, of as many axes."""
        return torch.ops.aten.convolution.default(
            *(x, weight, None, list(self.stride), list(self.padding), list(self.dilation)),
            *(self.transposed, list(self.output_padding or [0] * len(self.stride)), self.groups),
        )

    def out_channels(self, weight: Tensor) -> int:
        return weight.shape[1] * self.groups if self.transposed else weight.shape[0]

    def output_shape(self, x: Tensor, weight: Tensor) -> tuple[int, ...]:
        """(n, o, ...) of x (n, c, ...)."""
        sizes = []
        for axis, (s, p, d) in enumerate(
            zip(self.stride, self.padding, self.dilation, strict=True)
        ):
            size, reach = x.shape[2 + axis], d * (weight.shape[2 + axis] - 1)
            if self.output_padding is not None:
                sizes.append((size - 1) * s - 2 * p + reach + self.output_padding[axis] + 1)
            else:
                sizes.append((size + 2 * p - reach - 1) // s + 1)
        return (x.shape[0], self.out_channels(weight), *sizes)

    def check(
        self,
        x: Tensor,
        weight: Tensor,
        w_scales: float | Tensor,
        w_zero_points: int | Tensor | None,
        bias: Tensor | None,
        out_dtype: torch.dtype,
        residual: Tensor | None,
    ) -> None:
        """TypeError, ValueError for what the convolution does not take, values aside."""
        groups, form = self.groups, "(c, o / groups, ...)"
        if not self.transposed:
            form = "(o, c / groups, ...)"
        if weight.ndim != x.ndim:
            raise ValueError(
                f"a convolution of x {tuple(x.shape)} takes a weight {form} with "
                f"{x.ndim} axes; got {tuple(weight.shape)}"
            )
        c, o = x.shape[1], self.out_channels(weight)
        fits = weight.shape[0] == c if self.transposed else weight.shape[1] * groups == c
        if groups < 1 or c % groups or o % groups or not fits:
            raise ValueError(
                f"x of {c} channels and groups={groups} do not fit a weight {form} of shape "
                f"{tuple(weight.shape)}"
            )
        scales = weight.shape[1] if self.transposed else o
        check_operands(x, weight, w_scales, w_zero_points, None, scales, out_dtype)
        check_operands(x, weight, 1.0, None, bias, o, out_dtype)
        if self.output_padding is not None:
            rules = zip(self.output_padding, self.stride, self.dilation, strict=True)
            if any(extra >= max(s, d) for extra, s, d in rules):
                raise ValueError(
                    f"output_padding {self.output_padding} must be less than stride {self.stride} "
                    f"or dilation {self.dilation}"
                )
        shape = self.output_shape(x, weight)
        if any(size < 1 for size in shape[2:]):
            raise ValueError(
                f"the kernel {tuple(weight.shape[2:])} is larger than the image "
                f"{tuple(x.shape[2:])} with its padding: the output would be {shape}"
            )
        check_residual(residual, shape)


def _each(name: str, value: int | Sequence[int], dims: int, least: int) -> tuple[int, ...]:
    if isinstance(value, str):
        raise ValueError(f"{name} is a number or one for each spatial axis, not {value!r}")
    values = (value,) * dims if isinstance(value, int) else tuple(value)
    if len(values) == 1:
        values *= dims
    if len(values) != dims or any(v < least for v in values):
        raise ValueError(
            f"{name}={value!r} must be one number of at least {least} for each of the {dims} "
            "spatial axes, or one for all"
        )
    return values
