"""Packed convolutions on a GPU."""

from __future__ import annotations

import ctypes
import functools
import math

import torch
from torch import Tensor

from lowbit.functional.packed_conv import (
    BITS,
    FLOAT,
    INT,
    check_packed,
    check_params,
    check_residual,
    plane_weights,
    rows_of,
)
from lowbit.functional.packed_geometry import Geometry
from lowbit.functional.packing import WORD, words_for
from lowbit.kernels.cuda import _driver, _panel, _tiles
from lowbit.kernels.cuda._pack import pack

BOTH = 3
MOST_STEPS = 16

_Three = ctypes.c_int * 3


class _Conv(ctypes.Structure):
    """``Conv`` of conv.cu."""

    _fields_ = [
        *((name, ctypes.c_void_p) for name in ("x", "panel", "tap_sums", "sums", "params")),
        *((name, ctypes.c_void_p) for name in ("limits", "residual", "result", "bits")),
        ("rows", ctypes.c_longlong),
        ("result_strides", ctypes.c_longlong * 3),
        ("residual_strides", ctypes.c_longlong * 3),
        *((name, _Three) for name in ("in_size", "out_size", "kernel", "stride", "before")),
        ("dilation", _Three),
        *((name, ctypes.c_int) for name in ("words", "steps", "taps", "filters", "tiles")),
        *((name, ctypes.c_int) for name in ("out_channels", "groups", "planes_x", "planes_w")),
        *((name, ctypes.c_int) for name in ("thermometer_x", "thermometer_w")),
        *((name, ctypes.c_int) for name in ("inside", "outside")),
        *((name, ctypes.c_ulonglong) for name in ("padding", "last_padding")),
        *((name, ctypes.c_int) for name in ("param_rows", "sign_row", "step_count")),
        ("after", ctypes.c_int * MOST_STEPS),
    ]


def bconv(
    x: Tensor,
    weight: Tensor,
    params: Tensor | None,
    thresholds: Tensor | None,
    residual: Tensor | None,
    layer: str,
    out: int,
    channels_last: bool,
) -> Tensor:
    """``lowbit::bconv`` on a GPU."""
    if out not in (INT, FLOAT, BITS):
        raise ValueError(f"out is 0 (int32), 1 (float32) or 2 (packed signs); got {out}")
    y, bits = _convolve(x, weight, params, thresholds, residual, layer, out, channels_last)
    result = bits if out == BITS else y
    assert result is not None
    return result


def bconv_both(
    x: Tensor,
    weight: Tensor,
    params: Tensor | None,
    thresholds: Tensor | None,
    residual: Tensor | None,
    layer: str,
    channels_last: bool,
) -> tuple[Tensor, Tensor]:
    """``lowbit::bconv_both`` on a GPU."""
    y, bits = _convolve(x, weight, params, thresholds, residual, layer, BOTH, channels_last)
    assert y is not None
    assert bits is not None
    return y, bits


@functools.lru_cache(4096)
def _parsed(layer: str) -> tuple[Geometry, tuple[int, ...]]:
    g, steps = Geometry.parse(layer)
    g.check()
    if len(steps) > MOST_STEPS:
        raise ValueError(f"at most {MOST_STEPS} steps follow a convolution; got {len(steps)}")
    rows_of(steps)
    return g, tuple(steps)


@functools.lru_cache(4096)
def _plan(
    layer: str, n: int, spatial: tuple[int, ...], out: int, sign_row: int
) -> tuple[bytes, tuple[int, ...]]:
    """What a launch is told, but for memory, and the spatial size that comes out."""
    g, steps = _parsed(layer)
    missing = 3 - len(spatial)
    axes = g.output_size((1,) * missing + spatial)
    size = axes[missing:]
    if axes[:missing] != (1,) * missing:
        raise ValueError(f"x has {len(spatial)} spatial axes; this geometry's kernel needs more")
    at = _panel.layout(g)
    inside = sum(plane_weights(g.planes_x, g.thermometer_x)) + g.offset
    # Padding with the sign -1 is read as bits, and then counts as all inside does.
    negative = g.planes_x == 1 and g.offset == 0 and g.pad == -1
    rest = (g.channels // g.groups - 1) % WORD + 1
    filled = _Conv(
        rows=n * math.prod(size),
        in_size=(*[1] * missing, *spatial),
        out_size=(*[1] * missing, *size),
        kernel=g.kernel,
        stride=g.stride,
        before=g.before,
        dilation=g.dilation,
        words=g.words,
        steps=at.steps,
        taps=g.taps,
        filters=at.filters,
        tiles=at.tiles,
        out_channels=g.out_channels,
        groups=g.groups,
        planes_x=g.planes_x,
        planes_w=g.planes_w,
        thermometer_x=g.thermometer_x,
        thermometer_w=g.thermometer_w,
        inside=inside,
        outside=0 if negative else g.pad - inside,
        padding=2**WORD - 1 if negative else 0,
        last_padding=2**rest - 1 if negative else 0,
        param_rows=rows_of(steps) + (sign_row >= 0),
        sign_row=sign_row,
        step_count=len(steps),
        after=steps,
    )
    return bytes(filled), size


def _convolve(
    x: Tensor,
    weight: Tensor,
    params: Tensor | None,
    thresholds: Tensor | None,
    residual: Tensor | None,
    layer: str,
    out: int,
    channels_last: bool,
) -> tuple[Tensor | None, Tensor | None]:
    g, steps = _parsed(layer)
    for name, t in (("params", params), ("residual", residual)):
        if t is not None and t.device != x.device:
            raise ValueError(f"{name} lie on {t.device}, the input on {x.device}")
    if x.dtype != torch.int64:
        if x.ndim > 1 and x.shape[1] != g.channels:
            raise ValueError(f"this layer takes {g.channels} channels; got x {tuple(x.shape)}")
        x = pack(x, thresholds, g.planes_x, bool(g.thermometer_x), g.groups)
    elif thresholds is not None:
        raise ValueError("packed input is coded already: thresholds must be None")
    check_packed(x, g)
    if out in (BITS, BOTH) and g.groups > 1 and g.out_channels // g.groups % WORD:
        raise ValueError(
            f"packed results of {g.groups} groups need a multiple of {WORD} filters in each; got "
            f"{g.out_channels // g.groups}"
        )
    rows = rows_of(steps)
    sign_row = -1
    if out == BOTH and params is not None and len(params) == rows + 1:
        sign_row, rows = rows, rows + 1
    floats = out in (FLOAT, BOTH)
    check_params(
        params,
        2 if out == BITS else rows if floats else None,
        g,
        steps,
        steps if floats else (),
        torch.int32 if out == BITS else torch.float32,
    )
    n, spatial = x.shape[0], tuple(x.shape[2:])
    plan, size = _plan(layer, n, spatial, out, sign_row)
    shape = (n, g.out_channels, *size)
    check_residual(residual, shape, steps)
    weight = _panel.check(weight, g, x.device)

    y = bits = None
    if out != BITS:
        dtype = torch.float32 if floats else torch.int32
        if channels_last:
            y = x.new_empty((n, *size, g.out_channels), dtype=dtype).movedim(-1, 1)
        else:
            y = x.new_empty(shape, dtype=dtype)
    if out in (BITS, BOTH):
        bits = x.new_empty((n, words_for(g.out_channels), *size))
    if n == 0:
        return y, bits
    x = x.contiguous()
    call = _Conv.from_buffer_copy(plan)
    call.x = x.data_ptr()
    base, at = weight.data_ptr(), _panel.layout(g)
    call.panel, call.sums, call.tap_sums = base + at.panel, base + at.sums, base + at.tap_sums
    if params is not None:
        params = params.contiguous()
        if out == BITS:
            call.limits = params.data_ptr()
        else:
            call.params = params.data_ptr()
    if y is not None:
        call.result = y.data_ptr()
        call.result_strides = _strides(y)
    if bits is not None:
        call.bits = bits.data_ptr()
    if residual is not None:
        if not _is_dense(residual):
            residual = residual.contiguous()
        call.residual = residual.data_ptr()
        call.residual_strides = _strides(residual)
    pairs = g.planes_x * g.planes_w
    planes = pairs > 1
    tile = _tiles.choose(
        call.rows, at.filters, g.groups, pairs * at.steps, planes, _processors(x.device)
    )
    point = g.taps == 1 and math.prod(spatial) == 1 and not g.padded
    defines = (*_macros(tile), ("PAIRS", int(planes)), ("OUT", out), ("POINT", int(point)))
    launch = _driver.kernel("conv", defines, x.device)
    grid = (-(-call.rows // tile.rows), -(-at.filters // tile.columns), g.groups)
    channel_rows = 1 + (2 if out == BITS else call.param_rows)
    launch(grid, tile.threads, tile.shared(point, channel_rows), call)
    return y, bits


@functools.cache
def _macros(tile: _tiles.Tile) -> tuple[tuple[str, int], ...]:
    names = ("WM", "WARPS_M", "WARPS_N", "WARPS_K", "STEPS", "STAGES")
    return tuple(zip(names, tile, strict=True))


@functools.cache
def _processors(device: torch.device) -> int:
    if device.type != "cuda":
        return 1
    return torch.cuda.get_device_properties(device).multi_processor_count


def _strides(y: Tensor) -> tuple[int, int, int]:
    """Of image, channel and pixel of a dense y; an axis of one element may claim any stride."""
    channels, pixels = y.shape[1], math.prod(y.shape[2:])
    within = (pixels, 1) if y.is_contiguous() else (1, channels)
    return channels * pixels, *within


def _is_dense(y: Tensor) -> bool:
    """Whether the pixels of y lie at even distances, channels first or last."""
    return y.is_contiguous() or y.movedim(1, -1).is_contiguous()
