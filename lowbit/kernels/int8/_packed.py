"""Weights in oneDNN's own order, packed at first use.

They are found by the plain weight itself, which is all that a ``state_dict`` holds. They are gone
when it is, and made anew when it has been written to. (Writing through ``weight.data`` goes
unseen here, as it does in autograd.)
"""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

# A weight that meets images of several sizes is packed for each; the oldest goes.
KEPT = 4
# The kernels sum in int32.
_GREATEST_SUM = 2**31 - 1

_entries: dict[tuple[int, int], Packed] = {}


def find(weight: Tensor, transposed_groups: int = 0) -> Packed:
    """What is kept of an int8 weight.

    (o, k), (o, c / groups, ...), or, with ``transposed_groups``, (c, o / groups, ...) of a
    transposed convolution, which is kept as the weight of the convolution that it is.
    """
    key = (id(weight), transposed_groups)
    entry = _entries.get(key)
    if entry is None or not entry.is_of(weight):
        entry = _entries[key] = Packed(weight, transposed_groups)
    return entry


class Packed:
    """One weight, packed for each of its uses. ``fits``: no sum can overflow the kernels' int32."""

    def __init__(self, weight: Tensor, transposed_groups: int) -> None:
        key = (id(weight), transposed_groups)
        self._weight = weakref.ref(weight, functools.partial(_forget, key))
        self._groups = transposed_groups
        self._version, self._copy = _state(weight)
        self._packed: dict[object, Tensor] = {}
        plain = self._plain()
        self.channels, self.kernel = plain.shape[0], tuple(plain.shape[2:])
        # int8 has no abs(-128).
        sums = plain.to(torch.int16).abs().flatten(1).sum(1, dtype=torch.int64)
        self.fits = 255 * int(sums.max()) <= _GREATEST_SUM

    def is_of(self, weight: Tensor) -> bool:
        """Whether this is kept of ``weight``, as it is now."""
        if self._weight() is not weight:
            return False
        if self._copy is not None:
            return torch.equal(self._copy, weight)
        return self._version == weight._version

    def linear(self) -> Tensor:
        """For a linear layer, of inputs of any shape."""
        return self._get(
            "linear", lambda: torch.ops.onednn.qlinear_prepack.default(self._plain(), None)
        )

    def conv(
        self,
        x_shape: Sequence[int],
        x_scale: float,
        x_zero_point: int,
        w_scales: Tensor,
        windows: tuple[list[int], list[int], list[int], int],
    ) -> Tensor:
        """For a convolution in two or three dimensions, of images of one size.

        ``windows`` are stride, padding, dilation and groups. The zero point and the scales that
        it is packed with need not be those that it is used with. Input channels that the weight
        does not have get zeros.
        """

        def pack() -> Tensor:
            weight = self._plain()
            if weight.ndim < len(x_shape):
                weight = weight.unsqueeze(2)
            missing = x_shape[1] // windows[3] - weight.shape[1]
            if missing:
                zeros = weight.new_zeros(len(weight), missing, *weight.shape[2:])
                weight = torch.cat([weight, zeros], 1)
            return torch.ops.onednn.qconv_prepack.default(
                weight, w_scales, x_scale, x_zero_point, *windows, list(x_shape)
            )

        stride, padding, dilation, groups = windows
        return self._get((*x_shape[1:], *stride, *padding, *dilation, groups, len(x_shape)), pack)

    def _plain(self) -> Tensor:
        weight = self._weight()
        assert weight is not None
        weight = weight.detach()
        return (_turned(weight, self._groups) if self._groups else weight).contiguous()

    def _get(self, use: object, pack: Callable[[], Tensor]) -> Tensor:
        packed = self._packed.get(use)
        if packed is None:
            if len(self._packed) >= KEPT:
                del self._packed[next(iter(self._packed))]
            packed = self._packed[use] = pack()
        return packed


def _forget(key: tuple[int, int], dead: weakref.ref[Tensor]) -> None:
    entry = _entries.get(key)
    if entry is not None and entry._weight is dead:
        del _entries[key]


def _state(weight: Tensor) -> tuple[int, Tensor | None]:
    """By what to see that a weight has been written to: its version, or where none is kept, a copy.

    Tensors made in ``torch.inference_mode`` have no version.
    """
    return (0, weight.clone()) if weight.is_inference() else (weight._version, None)


def _turned(weight: Tensor, groups: int) -> Tensor:
    """(c, o / groups, k ...) -> (o, c / groups, k ...), with the kernel back to front."""
    c, o = weight.shape[:2]
    grouped = weight.reshape(groups, c // groups, *weight.shape[1:]).transpose(1, 2)
    return grouped.reshape(groups * o, c // groups, *weight.shape[2:]).flip(
        list(range(2, weight.ndim))
    )
