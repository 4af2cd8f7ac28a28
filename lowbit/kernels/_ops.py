"""The operators ``torch.ops.lowbit``: typed calls, and their shapes for tracing."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lowbit.functional.packed_conv import BITS, FLOAT, INT
from lowbit.functional.packed_geometry import Geometry
from lowbit.functional.packing import words_for


def prepare(words: Tensor, geometry: Sequence[int], isa: str = "") -> Tensor:
    """A weight in the coding of one instruction set ("": the one in use): uint8 (bytes,).

    ``words`` (planes_w, out_channels, taps, words) int64, as ``prepare_words`` packs them.
    """
    return torch.ops.lowbit.prepare.default(words, list(geometry), isa)


def pack(
    x: Tensor,
    thresholds: Tensor | None = None,
    planes: int = 1,
    thermometer: bool = False,
    groups: int = 1,
) -> Tensor:
    """Code and pack x; ``lowbit.functional.packed_conv.code`` says how."""
    return torch.ops.lowbit.pack.default(x, thresholds, planes, thermometer, groups)


def bconv(
    x: Tensor,
    weight: Tensor,
    params: Tensor | None,
    thresholds: Tensor | None,
    residual: Tensor | None,
    geometry: Geometry,
    steps: Sequence[int] = (),
    out: int = INT,
    channels_last: bool = False,
) -> Tensor:
    """``lowbit.functional.packed_conv.packed_conv`` with a prepared ``weight``.

    Integers and floats come out channels last in memory if ``channels_last``.
    """
    return torch.ops.lowbit.bconv.default(
        x, weight, params, thresholds, residual, geometry.layer(steps), out, channels_last
    )


def bconv_both(
    x: Tensor,
    weight: Tensor,
    params: Tensor | None,
    thresholds: Tensor | None,
    residual: Tensor | None,
    geometry: Geometry,
    steps: Sequence[int] = (),
    channels_last: bool = False,
) -> tuple[Tensor, Tensor]:
    """``lowbit.functional.packed_conv.packed_conv_both`` with a prepared ``weight``."""
    return torch.ops.lowbit.bconv_both.default(
        x, weight, params, thresholds, residual, geometry.layer(steps), channels_last
    )


def max_pool_bits(
    x: Tensor,
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    ceil_mode: bool = False,
    flip: Tensor | None = None,
) -> Tensor:
    """Max-pooling of packed signs; ``lowbit.functional.packed_conv.max_pool_bits``."""
    return torch.ops.lowbit.max_pool_bits.default(
        x, list(kernel), list(stride), list(padding), list(dilation), ceil_mode, flip
    )


def register_fakes() -> None:
    """What the operators return, without computing it."""
    for name, fake in (
        ("prepare", _prepare),
        ("pack", _pack),
        ("bconv", _bconv),
        ("bconv_both", _bconv_both),
        ("max_pool_bits", _max_pool_bits),
    ):
        torch.library.register_fake(f"lowbit::{name}", fake)


def _prepare(words: Tensor, geometry: Sequence[int], isa: str) -> Tensor:
    # How long a coding is, its instruction set alone knows.
    size = torch.library.get_ctx().new_dynamic_size()
    return words.new_empty((size,), dtype=torch.uint8)


def _pack(
    x: Tensor, thresholds: Tensor | None, planes: int, thermometer: bool, groups: int
) -> Tensor:
    words = planes * groups * words_for(x.shape[1] // groups)
    return x.new_empty((x.shape[0], words, *x.shape[2:]), dtype=torch.int64)


def _empty(x: Tensor, shape: Geometry, dtype: torch.dtype, channels_last: bool) -> Tensor:
    size = shape.output_size(tuple(x.shape[2:]))
    if channels_last:
        last = x.new_empty((x.shape[0], *size, shape.out_channels), dtype=dtype)
        return last.movedim(-1, 1)
    return x.new_empty((x.shape[0], shape.out_channels, *size), dtype=dtype)


def _bits(x: Tensor, shape: Geometry) -> Tensor:
    size = shape.output_size(tuple(x.shape[2:]))
    return x.new_empty((x.shape[0], words_for(shape.out_channels), *size), dtype=torch.int64)


def _bconv(
    x: Tensor,
    weight: Tensor,
    params: Tensor | None,
    thresholds: Tensor | None,
    residual: Tensor | None,
    layer: str,
    out: int,
    channels_last: bool,
) -> Tensor:
    shape, _ = Geometry.parse(layer)
    if out == BITS:
        return _bits(x, shape)
    return _empty(x, shape, torch.float32 if out == FLOAT else torch.int32, channels_last)


def _bconv_both(
    x: Tensor,
    weight: Tensor,
    params: Tensor | None,
    thresholds: Tensor | None,
    residual: Tensor | None,
    layer: str,
    channels_last: bool,
) -> tuple[Tensor, Tensor]:
    shape, _ = Geometry.parse(layer)
    return _empty(x, shape, torch.float32, channels_last), _bits(x, shape)


def _max_pool_bits(
    x: Tensor,
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    ceil_mode: bool,
    flip: Tensor | None,
) -> Tensor:
    # torch's own pooling has the rules of its shapes.
    planes = x.new_empty(x.shape, dtype=torch.float32)
    pooled = torch.ops.aten.max_pool2d_with_indices(
        planes, list(kernel), list(stride), list(padding), list(dilation), ceil_mode
    )[0]
    return x.new_empty(pooled.shape, dtype=torch.int64)
