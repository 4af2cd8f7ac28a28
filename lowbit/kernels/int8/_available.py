"""Whether oneDNN's int8 operators give the right integers here.

Where the processor has no VNNI instructions they add pairs of products in 16 bits, which overflow,
and return wrong integers without a word.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator

import torch
from torch import Tensor

from lowbit.functional.int8 import conv as conv_specification
from lowbit.functional.int8 import linear as linear_specification
from lowbit.kernels.int8 import _onednn
from lowbit.kernels.int8._packed import find

_OPERATORS = (
    "qlinear_prepack",
    "qlinear_pointwise",
    "qconv_prepack",
    "qconv_pointwise",
    "qconv2d_pointwise",
)
# Input, weight, groups: a first layer, the usual ones, and channels one by one.
_CONVOLUTIONS = (
    ((1, 3, 9, 9), (32, 3, 3, 3), 1),
    ((2, 64, 6, 6), (48, 64, 3, 3), 1),
    ((1, 64, 8, 8), (32, 64, 1, 1), 1),
    ((1, 32, 6, 6), (32, 1, 3, 3), 32),
    ((1, 12, 6, 6), (8, 6, 3, 3), 2),
    ((1, 16, 9), (16, 16, 3), 1),
    ((1, 16, 4, 4, 4), (16, 16, 3, 3, 3), 1),
)
# Rows, input features, output features.
_LINEAR_LAYERS = ((1, 64, 64), (33, 100, 40))
# Scale, zero point, dtype of the output.
_OUTPUTS = ((1.0, 0, torch.float32), (30.0, 100, torch.uint8))


def available() -> bool:
    """Whether oneDNN's int8 operators run here, fast and exactly; else the specification does."""
    return why_not() is None


@functools.cache
def why_not() -> str | None:
    """Why oneDNN's int8 operators do not run here, or None where they do. Tries them once."""
    capabilities = torch.cpu.get_capabilities()
    if not (capabilities.get("avx512_vnni") or capabilities.get("avx_vnni")):
        return "without VNNI instructions, which this processor lacks, oneDNN's integers are wrong"
    missing = [name for name in _OPERATORS if not hasattr(torch.ops.onednn, name)]
    if missing:
        return f"torch {torch.__version__} has no torch.ops.onednn.{missing[0]}"
    try:
        with torch.no_grad():
            wrong = next((name for name, right in _trials() if not right), None)
    except (RuntimeError, TypeError, NotImplementedError) as error:
        return f"oneDNN's int8 operators in torch {torch.__version__} fail: {error}"
    if wrong is not None:
        return f"oneDNN's int8 {wrong} gives wrong integers here; is ONEDNN_MAX_CPU_ISA set?"
    return None


def _trials() -> Iterator[tuple[str, bool]]:
    """Names of operations, and whether each was right, on numbers that overflow 16 bits."""
    for rows, features, channels in _LINEAR_LAYERS:
        x, weight, scales, bias = _layer((rows, features), (channels, features))
        for out in _OUTPUTS:
            end = (bias, *out, True)
            found = _onednn.linear(x, 0.1, 7, find(weight), scales, *end, None, 1.0, 0)
            expected = linear_specification.linear(x, 0.1, 7, weight, scales, None, *end)
            yield "linear layer", torch.equal(found, expected)
    for x_shape, weight_shape, groups in _CONVOLUTIONS:
        x, weight, scales, bias = _layer(x_shape, weight_shape)
        windows = (1, 1, 1, groups)
        layout = conv_specification.ConvLayout.of(x.ndim - 2, *windows)
        for out in _OUTPUTS:
            found = _onednn.conv(x, 0.1, 7, find(weight), scales, bias, layout, *out, True)
            expected = conv_specification.conv(
                x, 0.1, 7, weight, scales, None, bias, *windows, *out, True
            )
            yield f"convolution of {len(x_shape) - 2} axes", torch.equal(found, expected)


def _layer(
    x_shape: tuple[int, ...], weight_shape: tuple[int, ...]
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Input, weight, its scales and bias: integers over the whole range, most at its ends."""
    generator = torch.Generator().manual_seed(0)

    def draw(shape: tuple[int, ...], low: int, high: int) -> Tensor:
        def below(top: int) -> Tensor:
            return torch.randint(0, top, shape, generator=generator, device="cpu")

        ends = torch.where(below(8) > 1, high, low)
        return torch.where(below(4) > 0, ends, low + below(high + 1 - low))

    x = draw(x_shape, 0, 255).to(torch.uint8)
    weight = draw(weight_shape, -128, 127).to(torch.int8)
    channels = weight_shape[0]
    line = functools.partial(torch.linspace, steps=channels, dtype=torch.float32, device="cpu")
    return x, weight, line(0.001, 0.01), line(-1.0, 1.0)
