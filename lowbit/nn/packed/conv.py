"""Packed convolutions."""

from __future__ import annotations

import math
from typing import Any, ClassVar, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from lowbit.functional.packed_geometry import Geometry
from lowbit.nn.conv import CONVOLUTIONS, _QConv
from lowbit.nn.packed._from_trained import packed_from
from lowbit.nn.packed._layer import PackedLayer


class _PackedConv(PackedLayer):
    """The common part: layout, padding with the input's own values, scales by its magnitude.

    ``padding_mode`` and ``around`` (the sizes that ``torch.nn.functional.pad`` takes): padding
    that the operator does not do, because it is made of the input's values or because the mean
    magnitude needs it.
    """

    dims: ClassVar[int]

    def __init__(
        self,
        geometry: Geometry,
        *,
        padding_mode: str = "zeros",
        around: tuple[int, ...] = (),
        **options: Any,
    ) -> None:
        self.padding_mode = padding_mode
        self.around = around
        super().__init__(geometry, **options)

    @classmethod
    def from_trained(cls, layer: _QConv) -> Self:
        """The packed layer that returns what ``layer`` does in evaluation.

        Raises ``CannotPack`` with the reason where there is none.
        """
        ends = tuple(layer._reversed_padding_repeated_twice)
        outside = layer.padding_mode != "zeros"
        none = (0,) * cls.dims
        return packed_from(
            cls,
            layer,
            cls.dims,
            groups=layer.groups,
            kernel=layer.kernel_size,
            stride=layer.stride,
            before=none if outside else ends[0::2][::-1],
            after=none if outside else ends[1::2][::-1],
            dilation=layer.dilation,
            pad=layer.pad_value,
            parts={"padding_mode": layer.padding_mode, "around": ends if outside else ()},
        )

    def set_packed_input(self) -> None:
        if self.padding_mode != "zeros":
            raise ValueError(f"padding_mode={self.padding_mode!r} pads numbers, not packed planes")
        super().set_packed_input()

    def _magnitude(self, x: Tensor) -> Tensor:
        g = self.geometry
        kernel, stride, dilation = (
            tuple(axis[3 - self.dims :]) for axis in (g.kernel, g.stride, g.dilation)
        )
        ends = [e for pair in zip(g.before[::-1], g.after[::-1], strict=True) for e in pair][
            : 2 * self.dims
        ]
        magnitude = F.pad(x.abs().mean(1, keepdim=True), self.around or ends)
        window = x.new_full((1, 1, *kernel), 1 / math.prod(kernel))
        return CONVOLUTIONS[self.dims](magnitude, window, None, stride, 0, dilation)

    def forward(self, x: Tensor, residual: Tensor | None = None) -> Any:
        if x.ndim != self.dims + 2:
            if x.ndim != self.dims + 1:
                raise ValueError(
                    f"{type(self).__name__} takes (n, c, ...) or (c, ...) with {self.dims} axes "
                    f"after the channels; got {tuple(x.shape)}"
                )
            y = self.forward(x.unsqueeze(0), None if residual is None else residual.unsqueeze(0))
            return tuple(part.squeeze(0) for part in y) if self.out == "both" else y.squeeze(0)
        if residual is not None:
            if residual.dtype != torch.float32:
                residual = residual.float()
            if not (residual.is_contiguous() or _is_channels_last(residual)):
                residual = residual.contiguous()  # some channels of a tensor, as in MeliusNet
        if self.packed_input:
            last = self.channels_last or (residual is not None and _is_channels_last(residual))
            y = self._run(x, residual, last)
            return y if self.dtype == torch.float32 else self._in_dtype(y, self.dtype)
        dtype, outside = x.dtype, self.padding_mode != "zeros"
        if dtype == torch.float32 and not outside and not self.act_scale:
            return self._run(x, residual, comes_channels_last(x))  # the usual, soon
        reals = self._reals(x)
        padded = F.pad(reals, self.around, mode=self.padding_mode) if outside else reals
        y = self._run(padded, residual, comes_channels_last(padded))
        if self.act_scale:
            y = self._scaled(y, reals)
        return self._in_dtype(y, dtype)

    def extra_repr(self) -> str:
        shown = "" if self.padding_mode == "zeros" else f", padding_mode={self.padding_mode!r}"
        return super().extra_repr() + shown + (f", around={self.around}" if self.around else "")


FORMATS = {4: torch.channels_last, 5: torch.channels_last_3d}


def _is_channels_last(x: Tensor) -> bool:
    """Whether the channels are the innermost in memory, and not the outermost as well."""
    if x.is_contiguous():
        return False
    if x.ndim in FORMATS:
        return x.is_contiguous(memory_format=FORMATS[x.ndim])
    return x.movedim(1, -1).is_contiguous()


def comes_channels_last(x: Tensor) -> bool:
    """Whether a trained layer gives channels last for x: also for a part of such a tensor."""
    if x.is_contiguous():
        return False
    if _is_channels_last(x):
        return True
    if x.ndim not in FORMATS:
        return False
    # Its quantizer lays out anew what is not dense, its axes in the same order.
    strides, least = torch.empty_like(x).stride(), 1
    for axis in (1, *range(x.ndim - 1, 1, -1), 0):
        if strides[axis] < least:
            return False
        least = strides[axis] * x.shape[axis]
    return True


class PackedConv1d(_PackedConv):
    """``QConv1d`` on bits: x (N, C, L) or (C, L). All else is said in ``PackedLayer``."""

    dims = 1


class PackedConv2d(_PackedConv):
    """``QConv2d`` on bits: x (N, C, H, W) or (C, H, W). All else is said in ``PackedLayer``.

    >>> from lowbit.nn import QConv2d
    >>> layer = QConv2d(64, 8, 3, padding=1, input_quantization="sign", weight_quantization="sign")
    >>> x = torch.randn(2, 64, 5, 5)
    >>> torch.allclose(PackedConv2d.from_trained(layer)(x), layer(x), atol=1e-4)
    True
    """

    dims = 2


class PackedConv3d(_PackedConv):
    """``QConv3d`` on bits: x (N, C, D, H, W) or (C, D, H, W). All else is in ``PackedLayer``."""

    dims = 3
