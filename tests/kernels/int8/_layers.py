"""Int8 layers for the tests, drawn from seeds: the arguments of specification and kernel."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lowbit.functional.int8 import conv as conv_specification
from lowbit.functional.int8 import linear as linear_specification
from lowbit.kernels import int8
from lowbit.kernels.int8 import _calls, _ops

DTYPES = {torch.uint8: (0, 255), torch.int8: (-128, 127)}
SPECIFICATIONS: dict[str, Callable[..., Tensor]] = {
    "linear": linear_specification.linear,
    "conv": conv_specification.conv,
    "conv_transpose": conv_specification.conv_transpose,
}
KERNELS: dict[str, Callable[..., Tensor]] = {
    "linear": int8.linear,
    "conv": int8.conv,
    "conv_transpose": int8.conv_transpose,
}


def linear_by_onednn(
    x: Tensor,
    x_scale: float,
    x_zero_point: int,
    weight: Tensor,
    w_scales: float | Tensor,
    w_zero_points: int | Tensor | None = None,
    bias: Tensor | None = None,
    out_scale: float = 1.0,
    out_zero_point: int = 0,
    out_dtype: torch.dtype = torch.uint8,
    relu: bool = False,
    residual: Tensor | None = None,
    residual_scale: float = 1.0,
    residual_zero_point: int = 0,
) -> Tensor:
    """What runs where lowbit has no compiled library."""
    weights = (weight, *_calls._vectors(weight, w_scales, w_zero_points), bias)
    out = (out_scale, out_zero_point, out_dtype, relu)
    added = (residual, residual_scale, residual_zero_point)
    return _ops.qlinear(x, x_scale, x_zero_point, *weights, *out, *added)


BY_ONEDNN = KERNELS | {"linear": linear_by_onednn}


class Layer(NamedTuple):
    kind: str
    arguments: dict[str, Any]

    def expected(self) -> Tensor:
        return SPECIFICATIONS[self.kind](**self.arguments)

    def found(self) -> Tensor:
        return KERNELS[self.kind](**self.arguments)

    def by_onednn(self) -> Tensor:
        """By oneDNN also where lowbit's own kernel would be taken."""
        return BY_ONEDNN[self.kind](**self.arguments)

    def but(self, **others: Any) -> Layer:
        return Layer(self.kind, self.arguments | others)


def drawn(kind: str, seed: int, dims: int | None = None) -> Layer:
    """A small layer of every option: int8 or uint8, groups, layouts, outputs, residuals."""
    pick, generator = random.Random(f"{kind}{seed}"), torch.Generator().manual_seed(seed)

    def integers(dtype: torch.dtype, *shape: int) -> Tensor:
        low, high = DTYPES[dtype]
        return torch.randint(low, high + 1, shape, generator=generator).to(dtype)

    def zero_point(dtype: torch.dtype) -> int:
        low, high = DTYPES[dtype]
        return pick.choice([low, high, pick.randint(low, high)])

    x_dtype = pick.choice([torch.uint8, torch.uint8, torch.int8])
    out_dtype = pick.choice([torch.uint8, torch.uint8, torch.int8, torch.float32])
    n, groups = pick.randint(1, 3), pick.choice([1, 1, 2, 5])
    layer: dict[str, Any] = {"x_scale": pick.uniform(0.001, 0.1)}
    if kind == "linear":
        k, o = pick.randint(1, 130), pick.randint(1, 70)
        shape = pick.choice([(k,), (n, k), (n, 3, k), (40, k)])
        x, weight, channels = integers(x_dtype, *shape), integers(torch.int8, o, k), o
    else:
        dims = dims or pick.choice([1, 2, 2, 2, 3])
        c, o = groups * pick.randint(1, 20), groups * pick.randint(1, 20)
        if pick.random() < 0.2:
            c = o = groups = pick.choice([3, 16, 33])
        kernel = [pick.randint(1, 3) for _ in range(dims)]
        x = integers(x_dtype, n, c, *[pick.randint(5, 8) for _ in range(dims)])
        if pick.random() < 0.5:
            x = x.movedim(1, -1).contiguous().movedim(-1, 1)
        first, second = (c, o // groups) if kind == "conv_transpose" else (o, c // groups)
        weight, channels = integers(torch.int8, first, second, *kernel), o
        layer |= {
            "stride": [pick.randint(1, 3) for _ in range(dims)],
            "padding": [pick.randint(0, 2) for _ in range(dims)],
            "dilation": [pick.randint(1, 2) for _ in range(dims)],
            "groups": groups,
        }
        if kind == "conv_transpose":
            layer["output_padding"] = [pick.randint(0, s - 1) for s in layer["stride"]]
    count = channels // groups if kind == "conv_transpose" else channels
    scales = torch.rand(pick.choice([1, count]), generator=generator) * 0.01 + 1e-4
    w_scales = pick.choice([scales, scales.double(), float(scales[0])])
    asymmetric = pick.choice([3, torch.arange(count) % 5 - 2])
    layer |= {
        "x": x,
        "x_zero_point": zero_point(x_dtype),
        "weight": weight,
        "w_scales": w_scales,
        "w_zero_points": pick.choice([None, None, 0, torch.zeros(count).int(), asymmetric]),
        "bias": pick.choice([None, torch.randn(channels, generator=generator)]),
        "out_dtype": out_dtype,
        "relu": pick.random() < 0.5,
    }
    real = Layer(kind, layer | {"out_dtype": torch.float32}).expected()
    if out_dtype != torch.float32:
        spread = float(real.abs().max()) / pick.choice([60, 150, 300])
        layer |= {"out_scale": max(spread, 1e-6), "out_zero_point": zero_point(out_dtype)}
    if kind != "conv_transpose" and pick.random() < 0.5:
        r_dtype = pick.choice([torch.uint8, torch.int8, torch.float32])
        if pick.random() < 0.5:
            r_dtype = out_dtype
        if r_dtype == torch.float32:
            layer["residual"] = torch.randn(real.shape, generator=generator)
        else:
            layer |= {
                "residual": integers(r_dtype, *real.shape),
                "residual_scale": pick.uniform(0.5, 2) * float(real.abs().max() + 0.1) / 200,
                "residual_zero_point": zero_point(r_dtype),
            }
    return Layer(kind, layer)
