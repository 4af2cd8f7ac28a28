"""The operators without a compiled library: their schemas, computed by the specification.

A prepared weight is a header that names this coding, the geometry, and the words themselves.
"""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Sequence

import torch
from torch import Tensor

from lowbit.functional import packed_conv as specification
from lowbit.functional.packed_geometry import Geometry

NAME = "reference"
HEADER = b"lowbit:reference"

_CONVOLVE = (
    "(Tensor x, Tensor weight, Tensor? params, Tensor? thresholds, Tensor? residual, str layer, "
)
SCHEMAS = {
    "prepare": "(Tensor words, int[] geometry, str isa) -> Tensor",
    "pack": "(Tensor x, Tensor? thresholds, int planes, bool thermometer, int groups) -> Tensor",
    "bconv": _CONVOLVE + "int out, bool channels_last) -> Tensor",
    "bconv_both": _CONVOLVE + "bool channels_last) -> (Tensor, Tensor)",
    "max_pool_bits": "(Tensor x, int[] kernel, int[] stride, int[] padding, int[] dilation, "
    "bool ceil_mode, Tensor? flip) -> Tensor",
}

_reason = ""
_warned = False


def register(reason: str) -> torch.library.Library:
    """Define the operators and their kernels; they live as long as what is returned."""
    global _reason
    _reason = reason
    library = torch.library.Library("lowbit", "FRAGMENT")
    kernels = {
        "prepare": prepare,
        "pack": pack,
        "bconv": bconv,
        "bconv_both": bconv_both,
        "max_pool_bits": max_pool_bits,
    }
    for name, schema in SCHEMAS.items():
        library.define(name + schema, tags=(torch.Tag.pt2_compliant_tag,))
        library.impl(name, kernels[name], "CPU")
    return library


def _warn() -> None:
    """Say once that no compiled kernel runs, and why."""
    global _warned
    if not _warned:
        _warned = True
        warnings.warn(
            f"packed layers run in plain torch, slower than float: {_reason}",
            UserWarning,
            stacklevel=3,
        )


def prepare(words: Tensor, geometry: Sequence[int], isa: str) -> Tensor:
    if (isa or os.environ.get("LOWBIT_ISA", "")) not in ("", NAME):
        wanted = isa or os.environ["LOWBIT_ISA"]
        raise ValueError(f"no instruction set named {wanted!r} here; there is: {NAME}")
    shape = Geometry.from_numbers(geometry)
    specification.weight_integers(words, shape)  # refuses words of another layer
    numbers = torch.tensor(list(geometry), dtype=torch.int64)
    header = torch.tensor(list(HEADER), dtype=torch.uint8)
    return torch.cat([header, _bytes(numbers), _bytes(words)])


def _bytes(words: Tensor) -> Tensor:
    return words.contiguous().flatten().view(torch.uint8)


def _words(blob: Tensor, shape: Geometry) -> Tensor:
    """The words of a prepared weight of this geometry."""
    start, end = len(HEADER), len(HEADER) + 8 * len(shape)
    if (
        len(blob) < end
        or blob.dtype != torch.uint8
        or blob.ndim != 1
        or bytes(blob[:start].tolist()) != HEADER
    ):
        raise ValueError(
            f"this is no weight prepared for {NAME!r}; prepare it again on this machine with "
            "torch.ops.lowbit.prepare"
        )
    # A copy: bytes may lie at any address, words may not.
    numbers = Geometry(*blob[start:end].clone().view(torch.int64).tolist())
    if numbers != shape:
        raise ValueError(f"the weight was prepared for {numbers}; this call has {shape}")
    expected = (shape.planes_w, shape.out_channels, shape.taps, shape.words)
    if len(blob) != end + 8 * math.prod(expected):
        raise ValueError(
            f"the weight has {len(blob)} bytes instead of {end + 8 * math.prod(expected)}: a part "
            "is missing, or too much; prepare it again"
        )
    return blob[end:].clone().view(torch.int64).view(expected)


def pack(
    x: Tensor, thresholds: Tensor | None, planes: int, thermometer: bool, groups: int
) -> Tensor:
    _warn()
    return specification.code(x, thresholds, planes, thermometer, groups)


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
    _warn()
    shape, steps = Geometry.parse(layer)
    y = specification.packed_conv(
        x, _words(weight, shape), params, thresholds, residual, shape, steps, out
    )
    return y if out == specification.BITS else laid_out(y, channels_last)


def bconv_both(
    x: Tensor,
    weight: Tensor,
    params: Tensor | None,
    thresholds: Tensor | None,
    residual: Tensor | None,
    layer: str,
    channels_last: bool,
) -> tuple[Tensor, Tensor]:
    _warn()
    shape, steps = Geometry.parse(layer)
    y, bits = specification.packed_conv_both(
        x, _words(weight, shape), params, thresholds, residual, shape, steps
    )
    return laid_out(y, channels_last), bits


def max_pool_bits(
    x: Tensor,
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    ceil_mode: bool,
    flip: Tensor | None,
) -> Tensor:
    _warn()
    return specification.max_pool_bits(x, kernel, stride, padding, dilation, ceil_mode, flip)


def laid_out(y: Tensor, channels_last: bool) -> Tensor:
    """y (n, o, ...) in memory of its own, channels first or last."""
    if channels_last and y.ndim > 2:
        return y.movedim(1, -1).clone(memory_format=torch.contiguous_format).movedim(-1, 1)
    return y.clone(memory_format=torch.contiguous_format)
