"""The operators ``torch.ops.lowbit.int8_*``: what they return, for tracing, and what computes them
where nothing is compiled, so that a graph that holds them runs there too.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from lowbit.functional.int8 import arithmetic, limits, pool
from lowbit.functional.int8 import dequantize as _dequantize
from lowbit.functional.int8 import quantize as _quantize

_PAIR = (
    "(Tensor a, float a_scale, int a_zero_point, Tensor b, float b_scale, int b_zero_point, "
    "float scale, int zero_point, bool relu) -> Tensor"
)
_WINDOWS = "int[] kernel, int[] stride, int[] padding, "
SCHEMAS = {
    "int8_quantize": "(Tensor x, float scale, int zero_point, ScalarType dtype, "
    "bool channels_last) -> Tensor",
    "int8_dequantize": "(Tensor x, float scale, int zero_point) -> Tensor",
    "int8_requantize": "(Tensor x, float x_scale, int x_zero_point, float scale, "
    "int zero_point) -> Tensor",
    "int8_add": _PAIR,
    "int8_mul": _PAIR,
    "int8_cat": "(Tensor[] tensors, float[] scales, int[] zero_points, float scale, "
    "int zero_point, int dim) -> Tensor",
    "int8_clamp": "(Tensor x, int low, int high) -> Tensor",
    "int8_max_pool2d": f"(Tensor x, {_WINDOWS}int[] dilation, bool ceil_mode) -> Tensor",
    "int8_avg_pool2d": f"(Tensor x, int zero_point, {_WINDOWS}bool ceil_mode, "
    "bool count_include_pad, int? divisor) -> Tensor",
    "int8_adaptive_avg_pool2d": "(Tensor x, int zero_point, int[] size) -> Tensor",
}


def register() -> torch.library.Library:
    """Define what is not compiled, and all fakes; they live as long as what is returned."""
    library = torch.library.Library("lowbit", "FRAGMENT")
    for name, schema in SCHEMAS.items():
        if not hasattr(torch.ops.lowbit, name):
            library.define(name + schema, tags=(torch.Tag.pt2_compliant_tag,))
            library.impl(name, _PLAIN[name], "CPU")
        torch.library.register_fake(f"lowbit::{name}", _FAKES[name], lib=library)
    return library


def _fake_quantize(
    x: Tensor, scale: float, zero_point: int, dtype: torch.dtype, channels_last: bool
) -> Tensor:
    if channels_last:
        return _channels_last(x, tuple(x.shape), dtype)
    return torch.empty_like(x, dtype=dtype)


def _fake_dequantize(x: Tensor, scale: float, zero_point: int) -> Tensor:
    return torch.empty_like(x, dtype=torch.float32)


def _fake_requantize(
    x: Tensor, x_scale: float, x_zero_point: int, scale: float, zero_point: int
) -> Tensor:
    return torch.empty_like(x)


def _fake_pair(
    a: Tensor,
    a_scale: float,
    a_zero_point: int,
    b: Tensor,
    b_scale: float,
    b_zero_point: int,
    scale: float,
    zero_point: int,
    relu: bool,
) -> Tensor:
    shape = torch.broadcast_shapes(a.shape, b.shape)
    for whole in (a, b):
        if whole.shape == shape:
            return torch.empty_like(whole)
    return a.new_empty(shape)


def _fake_cat(
    tensors: list[Tensor],
    scales: list[float],
    zero_points: list[int],
    scale: float,
    zero_point: int,
    dim: int,
) -> Tensor:
    first = tensors[0]
    shape = list(first.shape)
    shape[dim] = sum(t.shape[dim] for t in tensors)
    layouts = {4: torch.channels_last, 5: torch.channels_last_3d}
    last = first.ndim in layouts and first.is_contiguous(memory_format=layouts[first.ndim])
    if last and not first.is_contiguous():
        return _channels_last(first, tuple(shape), first.dtype)
    return first.new_empty(shape)


def _fake_clamp(x: Tensor, low: int, high: int) -> Tensor:
    return torch.empty_like(x)


def _fake_max_pool2d(
    x: Tensor,
    kernel: list[int],
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    ceil_mode: bool,
) -> Tensor:
    sizes = [
        pool.windows(n, k, s, p, d, ceil_mode)
        for n, k, s, p, d in zip(x.shape[2:], kernel, stride, padding, dilation, strict=True)
    ]
    return _channels_last(x, (*x.shape[:2], *sizes), x.dtype)


def _fake_avg_pool2d(
    x: Tensor,
    zero_point: int,
    kernel: list[int],
    stride: list[int],
    padding: list[int],
    ceil_mode: bool,
    count_include_pad: bool,
    divisor: int | None,
) -> Tensor:
    return _fake_max_pool2d(x, kernel, stride, padding, [1, 1], ceil_mode)


def _fake_adaptive_avg_pool2d(x: Tensor, zero_point: int, size: list[int]) -> Tensor:
    return _channels_last(x, (*x.shape[:2], *size), x.dtype)


def _channels_last(x: Tensor, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """(n, c, ...), channels last in memory."""
    return x.new_empty((shape[0], *shape[2:], shape[1]), dtype=dtype).movedim(-1, 1)


_FAKES: dict[str, Callable[..., Tensor]] = {
    "int8_quantize": _fake_quantize,
    "int8_dequantize": _fake_dequantize,
    "int8_requantize": _fake_requantize,
    "int8_add": _fake_pair,
    "int8_mul": _fake_pair,
    "int8_cat": _fake_cat,
    "int8_clamp": _fake_clamp,
    "int8_max_pool2d": _fake_max_pool2d,
    "int8_avg_pool2d": _fake_avg_pool2d,
    "int8_adaptive_avg_pool2d": _fake_adaptive_avg_pool2d,
}


def _laid_out(name: str, specification: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """The specification, its result in the layout that the fake promises."""

    def run(*arguments: object) -> Tensor:
        values = specification(*arguments)
        on_meta = [_meta(argument) for argument in arguments]
        laid = torch.empty_strided(
            values.shape, _FAKES[name](*on_meta).stride(), dtype=values.dtype, device=values.device
        )
        return laid.copy_(values)

    return run


def _meta(argument: object) -> object:
    if isinstance(argument, list):
        return [_meta(part) for part in argument]
    return argument.to("meta") if isinstance(argument, Tensor) else argument


def _plain_quantize(
    x: Tensor, scale: float, zero_point: int, dtype: torch.dtype, channels_last: bool
) -> Tensor:
    return _quantize(x, scale, zero_point, dtype)


def _plain_requantize(
    x: Tensor, x_scale: float, x_zero_point: int, scale: float, zero_point: int
) -> Tensor:
    return arithmetic.cat([x], [x_scale], [x_zero_point], scale, zero_point, 0)


def _plain_add(*arguments: object) -> Tensor:
    function: Callable[..., Tensor] = arithmetic.add_relu if arguments[-1] else arithmetic.add
    return function(*arguments[:-1])


def _plain_mul(*arguments: object) -> Tensor:
    function: Callable[..., Tensor] = arithmetic.mul_relu if arguments[-1] else arithmetic.mul
    return function(*arguments[:-1])


def _plain_clamp(x: Tensor, low: int, high: int) -> Tensor:
    least, greatest = limits(x.dtype)
    return x.clamp(max(low, least), min(high, greatest))


def _plain_max_pool2d(
    x: Tensor,
    kernel: list[int],
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    ceil_mode: bool,
) -> Tensor:
    return pool.max_pool(x, 2, kernel, stride, padding, dilation, ceil_mode)


def _plain_avg_pool2d(x: Tensor, zero_point: int, *rest: object) -> Tensor:
    average: Callable[..., Tensor] = pool.avg_pool
    return average(x, zero_point, 2, *rest)


def _plain_adaptive_avg_pool2d(x: Tensor, zero_point: int, size: list[int]) -> Tensor:
    return pool.adaptive_avg_pool(x, zero_point, 2, list(size))


_SPECIFICATIONS: dict[str, Callable[..., Tensor]] = {
    "int8_quantize": _plain_quantize,
    "int8_dequantize": _dequantize,
    "int8_requantize": _plain_requantize,
    "int8_add": _plain_add,
    "int8_mul": _plain_mul,
    "int8_cat": arithmetic.cat,
    "int8_clamp": _plain_clamp,
    "int8_max_pool2d": _plain_max_pool2d,
    "int8_avg_pool2d": _plain_avg_pool2d,
    "int8_adaptive_avg_pool2d": _plain_adaptive_avg_pool2d,
}
_PLAIN = {name: _laid_out(name, run) for name, run in _SPECIFICATIONS.items()}
