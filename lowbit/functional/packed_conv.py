"""Packed layers: convolutions of small integers kept as planes of bits. The specification.

A bit b stands for the sign tau = 1 - 2 b. The integer coded by p planes is sum_j w_j tau_j with
w_j = 2^j (digits: odd integers from -(2^p - 1) to 2^p - 1) or w_j = 1 (thermometer: -p, -p + 2,
… p). One plane is a sign. Words are those of ``packing``.

A real input is coded by thresholds t, ascending: with r the number of them that x is below,
A = 2^p - 1 - 2 r (digits) or p - 2 r (thermometer). A NaN is below none and so codes as the
largest integer, +1 for a sign.

The convolution is, exactly,

    V[n, o, y] = sum over taps and channels of (A + offset) B inside the image, pad B around it.

Everything here goes through float64, in which sums of these integers are exact.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from lowbit.functional.packed_geometry import Geometry, largest_code, threshold_count
from lowbit.functional.packing import pack_bits, pack_signs, unpack_bits, unpack_signs

# What follows the convolution, in order; rows of parameters (channels) that each consumes.
AFFINE, RELU, RESIDUAL, PRELU, SHIFT, HARDTANH = 1, 2, 3, 4, 5, 6
ROWS = {AFFINE: 2, RELU: 0, RESIDUAL: 0, PRELU: 1, SHIFT: 1, HARDTANH: 0}
# What comes out.
INT, FLOAT, BITS = 0, 1, 2


def rows_of(steps: Sequence[int]) -> int:
    """How many rows of parameters the steps consume."""
    for step in steps:
        if step not in ROWS:
            raise ValueError(f"a step is one of 1 … {len(ROWS)}; got {step} in {list(steps)}")
    return sum(ROWS[step] for step in steps)


def plane_weights(planes: int, thermometer: bool | int) -> list[int]:
    """The weight of each plane.

    >>> plane_weights(3, False), plane_weights(3, True)
    ([1, 2, 4], [1, 1, 1])
    """
    return [1] * planes if thermometer else [2**j for j in range(planes)]


def planes_of(a: Tensor, planes: int, thermometer: bool | int) -> Tensor:
    """The bits of coded integers: (...) -> (planes, ...) bool.

    >>> planes_of(torch.tensor([-3, -1, 1, 3]), 2, False).int()
    tensor([[1, 0, 1, 0],
            [1, 1, 0, 0]], dtype=torch.int32)
    """
    r = (largest_code(planes, thermometer) - a.to(torch.int64)) // 2
    if thermometer:
        # x is below the r highest thresholds.
        return torch.stack([j >= planes - r for j in range(planes)])
    return torch.stack([(r >> j) & 1 == 1 for j in range(planes)])


def integers_of(bits: Tensor, thermometer: bool | int) -> Tensor:
    """The integers that planes of bits code: (planes, ...) bool -> (...) float64."""
    weights = plane_weights(len(bits), thermometer)
    return sum(
        (w * (1 - 2 * plane.double()) for w, plane in zip(weights, bits, strict=True)),
        start=torch.zeros(bits.shape[1:], dtype=torch.float64, device=bits.device),
    )


def code(
    x: Tensor, thresholds: Tensor | None, planes: int, thermometer: bool, groups: int
) -> Tensor:
    """Code and pack x (n, c, ...) -> (n, planes * groups * words_for(c / groups), ...) int64.

    Word (plane * groups + group) * words + w. ``thresholds`` float32 (T,) or (T, c), ascending,
    T = 2^planes - 1, or planes with a thermometer; None is the threshold 0 of one plane, a sign.
    """
    check_code(x, thresholds, planes, thermometer, groups)
    n, c = x.shape[:2]
    if thresholds is None:
        thresholds = x.new_zeros(1)
    below = torch.stack([x < t.view(1, -1, *[1] * (x.ndim - 2)) for t in thresholds])
    largest = largest_code(planes, thermometer)
    bits = planes_of(largest - 2 * below.long().sum(0), planes, thermometer)
    grouped = bits.movedim(0, 1).reshape(n, planes * groups, c // groups, *x.shape[2:])
    words = pack_bits(grouped.movedim(2, -1)).movedim(-1, 2)
    return words.flatten(1, 2).clone(memory_format=torch.contiguous_format)


def prepare_words(weight: Tensor, planes: int = 1, thermometer: bool = False) -> Tensor:
    """Pack coded weights: integers (o, c / groups, k ...) -> (planes, o, taps, words) int64."""
    bits = planes_of(weight.reshape(*weight.shape[:2], -1), planes, thermometer)
    return pack_bits(bits.transpose(2, 3))


def weight_integers(words: Tensor, geometry: Geometry) -> Tensor:
    """The weights B that words hold: (planes, o, taps, words) -> (o, c / groups, d, h, w)."""
    check_words(words, geometry)
    bits = unpack_bits(words, geometry.channels // geometry.groups)
    weight = integers_of(bits, geometry.thermometer_w).transpose(1, 2)
    return weight.reshape(*weight.shape[:2], *geometry.kernel)


def input_integers(x: Tensor, thresholds: Tensor | None, geometry: Geometry) -> Tensor:
    """The integers A of an input, real or packed: -> (n, c, ...) float64."""
    planes, groups = geometry.planes_x, geometry.groups
    if x.dtype != torch.int64:
        check_real(x)
        if x.shape[1] != geometry.channels:
            raise ValueError(
                f"this layer takes {geometry.channels} channels; got x {tuple(x.shape)}"
            )
        x = code(x, thresholds, planes, bool(geometry.thermometer_x), groups)
    elif thresholds is not None:
        raise ValueError("packed input is coded already: thresholds must be None")
    check_packed(x, geometry)
    n, spatial = x.shape[0], x.shape[2:]
    words = x.reshape(n, planes * groups, geometry.words, *spatial).movedim(2, -1)
    bits = unpack_bits(words, geometry.channels // groups).movedim(-1, 2)
    bits = bits.reshape(n, planes, geometry.channels, *spatial).movedim(1, 0)
    return integers_of(bits, geometry.thermometer_x)


def convolve(a: Tensor, b: Tensor, geometry: Geometry) -> Tensor:
    """V of integers a (n, c, ...) and b (o, c / groups, d, h, w): (n, o, ...) float64, exact."""
    out = geometry.output_size(tuple(a.shape[2:]))
    volume = a.reshape(*a.shape[:2], *[1] * (5 - a.ndim), *a.shape[2:]) + geometry.offset
    ends = zip(geometry.before[::-1], geometry.after[::-1], strict=True)
    volume = F.pad(volume, [size for pair in ends for size in pair], value=geometry.pad)
    v = F.conv3d(volume, b, None, geometry.stride, 0, geometry.dilation, geometry.groups)
    return v.reshape(a.shape[0], geometry.out_channels, *out)


def fma(a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    """a b + c of float32, rounded once.

    The product is exact in float64. The sum is rounded there to odd, which makes the second
    rounding, to float32, that of the exact sum (Boldo and Melquiond 2008).
    """
    product, addend = torch.broadcast_tensors(a.double() * b.double(), c.double())
    total = product + addend
    share = total - product
    error = (product - (total - share)) + (addend - share)
    even = total.contiguous().view(torch.int64) & 1 == 0
    odd = torch.nextafter(total, error.sign() * torch.inf)
    return torch.where(even & error.isfinite() & (error != 0), odd, total).float()


def apply_steps(
    y: Tensor, params: Tensor | None, residual: Tensor | None, steps: Sequence[int]
) -> Tensor:
    """The steps after the convolution, in float32: y (n, o, ...) -> same shape.

    1 AFFINE    y = row y + next row, rounded once
    2 RELU      y = max(y, 0); NaN stays
    3 RESIDUAL  y = y + residual
    4 PRELU     y = y if y >= 0 else row y
    5 SHIFT     y = y + row
    6 HARDTANH  y = clamp(y, -1, 1)

    Rows (o,) of ``params`` are consumed in order.
    """
    rows = iter(() if params is None else params)

    def row() -> Tensor:
        return next(rows).view(1, -1, *[1] * (y.ndim - 2))

    for step in steps:
        if step == AFFINE:
            y = fma(y, row(), row())
        elif step == RELU:
            y = y.clamp_min(0)
        elif step == RESIDUAL:
            assert residual is not None  # packed_conv has checked it
            y = y + residual
        elif step == PRELU:
            y = torch.where(y >= 0, y, row() * y)
        elif step == SHIFT:
            y = y + row()
        else:
            y = y.clamp(-1, 1)
    return y


def packed_conv(
    x: Tensor,
    words: Tensor,
    params: Tensor | None,
    thresholds: Tensor | None,
    residual: Tensor | None,
    geometry: Geometry,
    steps: Sequence[int],
    out: int,
) -> Tensor:
    """Convolve coded integers; x real (n, c, ...) float32 or packed, as ``code`` returns it.

    ``words`` (planes_w, o, taps, words) int64. With V the convolution of this module:

    out 0  V (n, o, ...) int32; no steps, no params
    out 1  float32 after ``steps`` (``apply_steps``), from V rounded to float32: exact to 2^24
    out 2  packed signs (n, words_for(o), ...) int64: bit (V < params[0]) xor params[1], with
           params int32 (2, o); no steps
    """
    v = _sums(x, words, thresholds, geometry)
    if out == INT:
        check_params(params, None, geometry, steps, ())
        return v.to(torch.int32)
    if out == BITS:
        check_params(params, 2, geometry, steps, (), torch.int32)
        assert params is not None
        t, flip = (p.view(1, -1, *[1] * (v.ndim - 2)) for p in params)
        return _pack_channels((v < t) ^ (flip != 0))
    if out != FLOAT:
        raise ValueError(f"out is 0 (int32), 1 (float32) or 2 (packed signs); got {out}")
    check_params(params, rows_of(steps), geometry, steps, steps)
    check_residual(residual, v.shape, steps)
    return apply_steps(v.float(), params, residual, steps)


def packed_conv_both(
    x: Tensor,
    words: Tensor,
    params: Tensor | None,
    thresholds: Tensor | None,
    residual: Tensor | None,
    geometry: Geometry,
    steps: Sequence[int],
) -> tuple[Tensor, Tensor]:
    """What ``packed_conv`` gives as float y, and the packed bits of y < t.

    t is one more row of ``params``, or 0 where there is none.
    """
    v = _sums(x, words, thresholds, geometry)
    rows = rows_of(steps)
    threshold = torch.zeros(geometry.out_channels, dtype=torch.float32, device=v.device)
    if params is not None and len(params) == rows + 1:
        rows, threshold = rows + 1, params[-1]
    check_params(params, rows, geometry, steps, steps)
    check_residual(residual, v.shape, steps)
    y = apply_steps(v.float(), params, residual, steps)
    return y, _pack_channels(y < threshold.view(1, -1, *[1] * (y.ndim - 2)))


def max_pool_bits(
    x: Tensor,
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    ceil_mode: bool,
    flip: Tensor | None,
) -> Tensor:
    """Max-pooling of packed signs: x (n, words, h, w) int64 -> (n, words, oh, ow).

    As torch.nn.functional.max_pool2d of the signs, shapes included; then xor with ``flip``
    (words,). A maximum of signs is -1 where all of them are: AND of the bits.
    """
    check_pool(x, flip)
    n, words, h, w = x.shape
    signs = unpack_signs(x.permute(0, 2, 3, 1), 64 * words).permute(0, 3, 1, 2)
    # torch's own pooling takes no batch of 0.
    pooled = F.max_pool2d(
        signs if n else signs.new_zeros(1, 64 * words, h, w),
        list(kernel),
        list(stride),
        list(padding),
        list(dilation),
        ceil_mode,
    )[:n]
    bits = pack_signs(pooled.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
    return (bits if flip is None else bits ^ flip.view(1, -1, 1, 1)).contiguous()


def _sums(x: Tensor, words: Tensor, thresholds: Tensor | None, geometry: Geometry) -> Tensor:
    b = weight_integers(words, geometry)
    return convolve(input_integers(x, thresholds, geometry), b, geometry)


def _pack_channels(bits: Tensor) -> Tensor:
    """(n, o, ...) bool -> (n, words_for(o), ...) int64."""
    return pack_bits(bits.movedim(1, -1)).movedim(-1, 1).contiguous()


def check_real(x: Tensor) -> None:
    """Raise ``ValueError`` where x is no input of floats."""
    if x.dtype != torch.float32 or not 2 <= x.ndim <= 5:
        raise ValueError(
            "an input is (n, c, ...) of float32 with up to three axes after the channels, or "
            f"packed int64; got {tuple(x.shape)} of {x.dtype}"
        )


def check_words(words: Tensor, geometry: Geometry) -> None:
    """Raise ``ValueError`` where the geometry makes no layer, or these are not its weights."""
    geometry.check()
    expected = (geometry.planes_w, geometry.out_channels, geometry.taps, geometry.words)
    if words.dtype != torch.int64 or words.shape != expected:
        raise ValueError(
            f"the weights of this layer are {expected} words of int64; "
            f"got {tuple(words.shape)} of {words.dtype}"
        )


def check_code(
    x: Tensor, thresholds: Tensor | None, planes: int, thermometer: bool, groups: int
) -> None:
    """Raise ``ValueError`` where ``code`` does not take these arguments."""
    check_real(x)
    c = x.shape[1]
    if not 1 <= planes <= 8:
        raise ValueError(f"planes is {planes}; 1 to 8 are possible")
    if groups < 1 or c % groups:
        raise ValueError(f"channels are a multiple of groups; got {c} and {groups}")
    if thresholds is None:
        if planes != 1:
            raise ValueError(f"{planes} planes need thresholds; without them there is one plane")
        return
    count = threshold_count(planes, thermometer)
    if thresholds.dtype != torch.float32 or thresholds.shape not in ((count,), (count, c)):
        raise ValueError(
            f"{planes} planes of {c} channels take thresholds ({count},) or ({count}, {c}) of "
            f"float32; got {tuple(thresholds.shape)} of {thresholds.dtype}"
        )


def check_packed(x: Tensor, geometry: Geometry) -> None:
    """Raise ``ValueError`` where x is no packed input of this layer."""
    expected = geometry.planes_x * geometry.groups * geometry.words
    if not 2 <= x.ndim <= 5 or x.shape[1] != expected:
        raise ValueError(
            f"packed input has {expected} words on axis 1 and up to three axes after it; "
            f"got {tuple(x.shape)}"
        )


def check_pool(x: Tensor, flip: Tensor | None) -> None:
    """Raise ``ValueError`` where these are no packed signs to pool, or no flips of their words."""
    if x.dtype != torch.int64 or x.ndim != 4:
        raise ValueError(
            f"packed signs to pool are (n, words, h, w) of int64; got {tuple(x.shape)} of {x.dtype}"
        )
    if flip is not None and (flip.dtype != torch.int64 or flip.shape != x.shape[1:2]):
        raise ValueError(
            f"flip is ({x.shape[1]},) of int64; got {tuple(flip.shape)} of {flip.dtype}"
        )


def check_params(
    params: Tensor | None,
    rows: int | None,
    geometry: Geometry,
    steps: Sequence[int],
    allowed: Sequence[int],
    dtype: torch.dtype = torch.float32,
) -> None:
    """Raise ``ValueError`` where an output that allows these steps does not take these params."""
    if list(steps) != list(allowed):
        raise ValueError(f"steps follow a float output only; got {list(steps)}")
    if not rows:
        if params is not None and params.numel() > 0:
            raise ValueError(f"this output takes no params; got {tuple(params.shape)}")
        return
    expected = (rows, geometry.out_channels)
    if params is None or params.dtype != dtype or params.shape != expected:
        got = "None" if params is None else f"{tuple(params.shape)} of {params.dtype}"
        raise ValueError(f"this output takes params {expected} of {dtype}; got {got}")


def check_residual(residual: Tensor | None, shape: Sequence[int], steps: Sequence[int]) -> None:
    """Raise ``ValueError`` where steps, a residual and the shape of the output do not agree."""
    if (RESIDUAL in steps) != (residual is not None):
        raise ValueError(
            f"the step {RESIDUAL} (residual) and a residual belong together; got steps "
            f"{list(steps)} and {'no residual' if residual is None else 'a residual'}"
        )
    if residual is not None and (residual.dtype != torch.float32 or residual.shape != tuple(shape)):
        raise ValueError(
            f"the residual of this output is {tuple(shape)} of float32; "
            f"got {tuple(residual.shape)} of {residual.dtype}"
        )
