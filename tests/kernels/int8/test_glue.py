"""Quantizing, arithmetic and pooling: the specification's bits, on every instruction set."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lowbit import kernels
from lowbit.functional import int8 as spec
from lowbit.functional.int8 import activations, arithmetic, pool
from lowbit.kernels import int8
from lowbit.kernels.int8 import _glue_ops

DTYPES = {torch.uint8: (0, 255), torch.int8: (-128, 127)}
compiled = pytest.mark.skipif(not kernels.available(), reason="lowbit has no compiled library here")


@pytest.fixture(params=kernels.isas())
def isa(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if kernels.available():
        monkeypatch.setenv("LOWBIT_ISA", request.param)
    return request.param


class Draw:
    """Tensors of a seed: shapes, layouts, integers, most of them at the ends."""

    def __init__(self, seed: int) -> None:
        self.pick = random.Random(seed)
        self.generator = torch.Generator().manual_seed(seed)
        self.dtype = self.pick.choice(list(DTYPES))

    def shape(self) -> tuple[int, ...]:
        rank = self.pick.choice([0, 1, 2, 3, 4, 4, 4, 5])
        return tuple(self.pick.choice([1, 2, 3, 5, 16, 17, 33]) for _ in range(rank))

    def image(self) -> Tensor:
        pick = self.pick
        shape = (pick.randint(1, 3), pick.choice([1, 3, 16, 64, 70]), pick.randint(5, 9), 7)
        return self.laid(self.integers(*shape))

    def integers(self, *shape: int) -> Tensor:
        low, high = DTYPES[self.dtype]
        wide = torch.randint(2 * low - high, 2 * high - low, shape, generator=self.generator)
        return wide.clamp(low, high).to(self.dtype)

    def laid(self, x: Tensor) -> Tensor:
        """The same numbers in another place or order in memory."""
        kind = self.pick.choice(["as it is", "last", "offset", "strided", "turned"])
        if kind == "last" and x.ndim > 2:
            return x.movedim(1, -1).contiguous().movedim(-1, 1)
        if kind == "offset":
            return torch.cat([x.flatten()[:1], x.flatten()])[1:].view(x.shape)
        if kind == "strided" and x.ndim:
            return torch.stack([x, x], -1)[..., 0]
        if kind == "turned" and x.ndim > 1:
            return x.transpose(0, -1).contiguous().transpose(0, -1)
        return x

    def scale(self) -> float:
        return self.pick.choice([0.5, 0.25, self.pick.uniform(0.01, 0.1), 3.0])

    def zero_point(self) -> int:
        low, high = DTYPES[self.dtype]
        return self.pick.choice([low, high, self.pick.randint(low, high)])

    def qparams(self) -> tuple[float, int]:
        return self.scale(), self.zero_point()


def in_its_layout(y: Tensor, x: Tensor) -> bool:
    return y.stride() == torch.empty_like(x).stride()


SEEDS = pytest.mark.parametrize("seed", range(40))


@SEEDS
@pytest.mark.parametrize("real", [torch.float32, torch.float16, torch.bfloat16])
def test_quantize(seed, real, isa):
    draw = Draw(seed)
    scale, zero_point = draw.qparams()
    shape = draw.shape()
    # Ties, both ends and beyond.
    x = torch.randint(-1100, 1100, shape, generator=draw.generator) * scale / 4
    odd = torch.tensor([torch.inf, -torch.inf, torch.nan, 3e38, -3e38, -0.0])
    where = torch.randint(0, 20, shape, generator=draw.generator)
    x = torch.where(where < 6, odd[where.clamp_max(5)], x).to(real)
    x = draw.laid(x)
    found = int8.quantize(x, scale, zero_point, draw.dtype)
    assert torch.equal(found, spec.quantize(x, scale, zero_point, draw.dtype))
    assert found.dtype == draw.dtype
    assert in_its_layout(found, x)


@SEEDS
@pytest.mark.parametrize("channels", [1, 3, 4, 20, 65])
def test_quantize_to_channels_last(seed, channels, isa):
    draw = Draw(seed)
    scale, zero_point = draw.qparams()
    shape = (draw.pick.randint(0, 2), channels, draw.pick.choice([1, 9, 60]), 37)
    x = draw.laid(torch.randn(shape, generator=draw.generator) * 10 * scale)
    found = int8.quantize(x, scale, zero_point, draw.dtype, channels_last=True)
    assert torch.equal(found, spec.quantize(x, scale, zero_point, draw.dtype))
    assert found.is_contiguous(memory_format=torch.channels_last)


@SEEDS
def test_dequantize(seed, isa):
    draw = Draw(seed)
    x = draw.laid(draw.integers(*draw.shape()))
    qparams = draw.qparams()
    found = int8.dequantize(x, *qparams)
    assert torch.equal(found, spec.dequantize(x, *qparams))
    assert in_its_layout(found, x)


@SEEDS
@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("name", ["add", "mul"])
def test_pairs(seed, name, relu, isa):
    draw = Draw(seed)
    shape = draw.shape()
    other = list(shape)[draw.pick.randint(0, len(shape)) :] if seed % 3 == 0 else list(shape)
    other = [1 if draw.pick.random() < 0.2 and seed % 3 == 0 else n for n in other]
    a, b = draw.laid(draw.integers(*shape)), draw.laid(draw.integers(*other))
    if seed % 2:
        a, b = b, a
    arguments = (a, *draw.qparams(), b, *draw.qparams(), *draw.qparams())
    expected = getattr(arithmetic, name + "_relu" * relu)(*arguments)
    found = getattr(int8, name)(*arguments, relu)
    assert torch.equal(found, expected)
    if a.shape == b.shape:
        assert in_its_layout(found, a)


@SEEDS
def test_cat(seed, isa):
    draw = Draw(seed)
    shape = draw.shape() or (3,)
    dim = draw.pick.randrange(-len(shape), len(shape))
    tensors = []
    for _ in range(draw.pick.randint(1, 4)):
        sizes = list(shape)
        sizes[dim] = draw.pick.choice([0, 1, 2, 40])
        tensors.append(draw.laid(draw.integers(*sizes)))
    out = draw.qparams()
    each = [out if draw.pick.random() < 0.3 else draw.qparams() for _ in tensors]
    scales, zero_points = [list(part) for part in zip(*each, strict=True)]
    arguments = (tensors, scales, zero_points, *out, dim)
    assert torch.equal(int8.cat(*arguments), arithmetic.cat(*arguments))


@SEEDS
def test_clamps(seed, isa):
    draw = Draw(seed)
    x = draw.laid(draw.integers(*draw.shape()))
    scale, zero_point = draw.qparams()
    assert torch.equal(int8.relu(x, zero_point), activations.relu(x, zero_point))
    for ends in ((0.0, 6.0), (None, 1.0), (-1.0, None), (2.0, -2.0)):
        arguments = (x, scale, zero_point, *ends)
        found = int8.clamp(*arguments)
        assert torch.equal(found, activations.clamp(*arguments))
        assert in_its_layout(found, x)


@SEEDS
def test_max_pool2d(seed, isa):
    draw = Draw(seed)
    x, pick = draw.image(), draw.pick
    kernel = [pick.randint(1, 3) for _ in range(2)]
    stride = pick.choice([None, 2, [1, 3]])
    padding = [pick.randint(0, k // 2) for k in kernel]
    arguments = (kernel, stride, padding, pick.choice([1, 2]), pick.random() < 0.5)
    found = int8.max_pool2d(x, *arguments)
    assert torch.equal(found, pool.max_pool(x, 2, *arguments))
    assert found.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(int8.max_pool2d(x[0], *arguments), found[0])


@SEEDS
def test_avg_pool2d(seed, isa):
    draw = Draw(seed)
    x, pick, zero_point = draw.image(), draw.pick, draw.zero_point()
    kernel = [pick.randint(1, 4) for _ in range(2)]
    padding = [pick.randint(0, k // 2) for k in kernel]
    rest = (pick.random() < 0.5, pick.random() < 0.5, pick.choice([None, None, 3]))
    arguments = (kernel, pick.choice([None, 2]), padding, *rest)
    found = int8.avg_pool2d(x, zero_point, *arguments)
    assert torch.equal(found, pool.avg_pool(x, zero_point, 2, *arguments))
    assert found.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(int8.avg_pool2d(x[0], zero_point, *arguments), found[0])


@SEEDS
@pytest.mark.parametrize("size", [1, (2, 3), (None, 4), 7, (11, 2)])
def test_adaptive_avg_pool2d(seed, size, isa):
    draw = Draw(seed)
    x, zero_point = draw.image(), draw.zero_point()
    found = int8.adaptive_avg_pool2d(x, zero_point, size)
    assert torch.equal(found, pool.adaptive_avg_pool(x, zero_point, 2, size))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n", [2, 4, 6, 10, 18, 256])
def test_means_at_ties_go_to_the_even_integer(n, dtype, isa):
    low, high = DTYPES[dtype]
    x = torch.full((1, 3, 1, n), low, dtype=dtype)
    x[..., : n // 2] = low + 1  # the mean is half an integer
    for zero_point in range(low, high + 1, 5):
        expected = pool.avg_pool(x, zero_point, 2, (1, n))
        assert torch.equal(int8.avg_pool2d(x, zero_point, (1, n)), expected)
        assert torch.equal(int8.adaptive_avg_pool2d(x, zero_point, 1), expected)


@pytest.mark.parametrize("shape", [(0,), (2, 0, 3), (0, 3, 5, 5)])
def test_what_is_empty_stays_so(shape):
    x = torch.zeros(shape, dtype=torch.uint8)
    assert int8.quantize(torch.zeros(shape), 1.0, 0, "uint8").shape == shape
    assert int8.dequantize(x, 1.0, 0).shape == shape
    assert int8.add(x, 1.0, 0, x, 1.0, 0, 1.0, 0).shape == shape
    assert int8.cat([x, x], [1.0, 2.0], [0, 0], 1.0, 0, 0).shape == (2 * shape[0], *shape[1:])
    assert int8.relu(x, 3).shape == shape


def test_integers_of_32_bits_take_the_specification():
    a = torch.tensor([2**31 - 1, -5], dtype=torch.int32)
    arguments = (a, 1.0, 0, a, 1.0, 0, 1.0, 0)
    assert torch.equal(int8.add(*arguments), arithmetic.add(*arguments))
    assert torch.equal(int8.dequantize(a, 0.5, 1), spec.dequantize(a, 0.5, 1))


U8 = torch.zeros(2, 3, 5, 5, dtype=torch.uint8)
WRONG: dict[str, tuple[Callable[[], Tensor], type[Exception], str]] = {
    "scale": (lambda: int8.quantize(torch.zeros(2), 0.0, 0, "uint8"), ValueError, "scale"),
    "nan": (lambda: int8.add(U8, 1.0, 0, U8, 1.0, 0, float("nan"), 0), ValueError, "scale"),
    "point": (lambda: int8.quantize(torch.zeros(2), 1.0, 256, "uint8"), ValueError, "256"),
    "double": (lambda: int8.quantize(torch.zeros(2).double(), 1.0, 0, "uint8"), TypeError, "64"),
    "dtypes": (lambda: int8.add(U8, 1.0, 0, U8.char(), 1.0, 0, 1.0, 0), TypeError, "one dtype"),
    "none": (lambda: int8.cat([], [], [], 1.0, 0), ValueError, "at least one"),
    "padding": (lambda: int8.max_pool2d(U8, 2, 1, 2), ValueError, "more than half"),
    "window": (lambda: int8.max_pool2d(U8, 9), ValueError, "does not fit"),
    "divisor": (lambda: int8.avg_pool2d(U8, 0, 2, divisor_override=0), ValueError, "divisor"),
    "broadcast": (
        lambda: int8.add(U8, 1.0, 0, U8[:, :2], 1.0, 0, 1.0, 0),
        RuntimeError,
        r"broadcast|match",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_errors_are_those_of_the_specification(name):
    call, error, words = WRONG[name]
    with pytest.raises(error, match=words):
        call()


@compiled
def test_an_unknown_instruction_set_is_refused(monkeypatch):
    monkeypatch.setenv("LOWBIT_ISA", "mmx")
    with pytest.raises(RuntimeError, match=r"no instruction set named 'mmx'.*scalar"):
        int8.dequantize(U8, 1.0, 0)


LAST = U8.to(memory_format=torch.channels_last)
REAL = torch.randn(2, 3, 5, 5)
CALLS: list[tuple[str, tuple[Any, ...]]] = [
    *(("int8_quantize", (x, 0.1, 3, torch.int8, last)) for x, last in itertools.product(
        (REAL, REAL.to(memory_format=torch.channels_last), REAL[..., ::2]), (False, True))),
    *(("int8_dequantize", (x, 0.1, 3)) for x in (U8, LAST, LAST[:, :2], U8[..., 0])),
    ("int8_requantize", (LAST, 0.1, 3, 0.2, 4)),
    *((name, (a, 0.1, 3, b, 0.2, 4, 0.3, 5, True)) for name in ("int8_add", "int8_mul")
      for a, b in ((U8, LAST), (LAST, U8), (LAST, U8[:, :, :1, :1]), (U8[0], LAST))),
    *(("int8_cat", ([x, x], [0.1, 0.2], [0, 1], 0.1, 0, dim))
      for x in (U8, LAST) for dim in (0, 1, -1)),
    *(("int8_clamp", (x, 3, 9)) for x in (U8, LAST)),
    *(("int8_max_pool2d", (x, [3, 2], [2, 1], [1, 0], [1, 2], True)) for x in (U8, LAST)),
    *(("int8_avg_pool2d", (x, 7, [3, 2], [2, 1], [1, 0], True, False, 3)) for x in (U8, LAST)),
    *(("int8_adaptive_avg_pool2d", (x, 7, [2, 3])) for x in (U8, LAST)),
]  # fmt: skip


@pytest.mark.parametrize("at", range(len(CALLS)), ids=lambda at: f"{CALLS[at][0]}-{at}")
def test_opcheck(at):
    name, arguments = CALLS[at]
    torch.library.opcheck(getattr(torch.ops.lowbit, name).default, arguments)


@pytest.mark.parametrize("at", range(len(CALLS)), ids=lambda at: f"{CALLS[at][0]}-{at}")
def test_operators_without_a_library_return_the_same(at):
    name, arguments = CALLS[at]
    found = getattr(torch.ops.lowbit, name).default(*arguments)
    plain = _glue_ops._PLAIN[name](*arguments)
    assert torch.equal(found, plain)
    assert (found.stride(), found.dtype) == (plain.stride(), plain.dtype)


@compiled
def test_their_schemas_are_those_of_the_compiled_ones():
    for name, schema in _glue_ops.SCHEMAS.items():
        found = str(getattr(torch.ops.lowbit, name).default._schema)
        assert found == f"lowbit::{name}{schema}"


class Glue(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        q = int8.quantize(x, 0.05, 100, torch.uint8, channels_last=True)
        q = int8.max_pool2d(q, 3, 2, 1)
        q = int8.add(q, 0.05, 100, q, 0.05, 100, 0.1, 90, relu=True)
        q = int8.cat([q, q], [0.1, 0.1], [90, 90], 0.2, 80, 1)
        q = int8.adaptive_avg_pool2d(int8.avg_pool2d(q, 80, 2), 80, 1)
        return int8.dequantize(q, 0.2, 80)


def test_compile_without_breaks():
    x = torch.randn(2, 3, 16, 16)
    compiled_glue = torch.compile(Glue(), fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled_glue(x), Glue()(x))


def test_export_with_any_batch():
    batch = torch.export.Dim("batch", min=2)
    exported = torch.export.export(
        Glue(), (torch.randn(2, 3, 16, 16),), dynamic_shapes=({0: batch},)
    )
    x = torch.randn(5, 3, 16, 16)
    assert torch.equal(exported.module()(x), Glue()(x))
