"""Packing and pooling: the words of the specification, whatever the instruction set."""

import functools
import itertools

import pytest
import torch
import torch.nn.functional as F

from lowbit import kernels
from lowbit.functional import packed_conv as spec
from lowbit.functional.packed_geometry import threshold_count
from tests.kernels._layers import CODES, assert_same, same_or_refused
from tests.kernels.test_ops import SPECIAL, memories


@pytest.fixture(autouse=True)
def _use(isa, monkeypatch):
    monkeypatch.setenv("LOWBIT_ISA", isa)


SHAPES = [(3, 1), (5, 63), (2, 64), (4, 65), (70, 130), (2, 513), (1, 4608), (1, 10000)]
SHAPES += [(2, 70, 1), (1, 65, 17), (2, 130, 300), (2, 1, 33)]
SHAPES += [(1, 3, 1, 1), (2, 64, 5, 7), (2, 65, 4, 16), (1, 31, 9, 33), (1, 200, 3, 131)]
SHAPES += [(2, 512, 7, 7), (1, 33, 64, 65), (2, 70, 2, 3, 5), (1, 64, 1, 1, 64), (0, 70, 3, 3)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_signs(shape):
    x = torch.randn(shape)
    x.view(-1)[::3] = SPECIAL[torch.arange(x.view(-1)[::3].numel()) % len(SPECIAL)]
    expected = spec.code(x, None, 1, False, 1)
    for name, given in {"contiguous": x, **memories(x)}.items():
        got = kernels.pack(given)
        assert torch.equal(got, expected), name
        assert got.is_contiguous()


def test_bit_j_of_word_w_is_channel_64_w_plus_j():
    x = 1 - 2 * torch.eye(200)
    expected = torch.zeros(200, 4).long()
    for c in range(200):
        expected[c, c // 64] = torch.tensor(1) << (c % 64)
    assert_same(kernels.pack(x), expected)
    images = x.view(200, 200, 1, 1).expand(200, 200, 2, 17)
    wanted = expected.view(200, 4, 1, 1).expand(200, 4, 2, 17)
    assert_same(kernels.pack(images.contiguous()), wanted.contiguous())
    last = images.contiguous(memory_format=torch.channels_last)
    assert_same(kernels.pack(last), wanted.contiguous())


@pytest.mark.parametrize("groups", [1, 2, 5])
@pytest.mark.parametrize(("planes", "thermometer"), [*CODES, (1, 1), (6, 0), (8, 1)], ids=str)
@pytest.mark.parametrize("per_channel", [False, True])
def test_planes_and_groups(planes, thermometer, per_channel, groups):
    count = threshold_count(planes, thermometer)
    for per_group, spatial in itertools.product([1, 33, 64, 70], [(), (19,), (3, 7), (2, 2, 5)]):
        c = per_group * groups
        x, t = torch.randn(2, c, *spatial), torch.randn(count, c).sort(0).values
        x[0, 0], x[-1, -1] = t[0, 0], float("nan")  # equal is not below
        t = t if per_channel else t[:, 0].clone()
        expected = spec.code(x, t, planes, bool(thermometer), groups)
        for given in (x, x.movedim(1, -1).contiguous().movedim(-1, 1)):
            assert_same(kernels.pack(given, t, planes, bool(thermometer), groups), expected)


@pytest.mark.parametrize("groups", [2, 64, 130])
def test_signs_in_groups(groups):
    x = torch.randn(2, 2 * groups, 3, 7)
    expected = spec.code(x, None, 1, False, groups)
    for given in (x, x.contiguous(memory_format=torch.channels_last)):
        assert_same(kernels.pack(given, groups=groups), expected)


WINDOWS = [
    ((2, 2), (2, 2), (0, 0), (1, 1), False),
    ((3, 3), (2, 2), (1, 1), (1, 1), False),
    ((3, 3), (2, 2), (1, 1), (1, 1), True),
    ((2, 3), (3, 2), (1, 1), (2, 3), False),
    ((2, 3), (3, 2), (1, 1), (2, 3), True),
    ((1, 1), (3, 4), (0, 0), (1, 1), True),
    ((5, 1), (3, 3), (2, 0), (1, 1), True),
    ((4, 4), (1, 1), (2, 2), (1, 1), False),
    ((1, 7), (1, 7), (0, 3), (1, 1), False),
]


@pytest.mark.parametrize("window", WINDOWS, ids=str)
@pytest.mark.parametrize("size", [(8, 7), (9, 33), (5, 9), (16, 70)], ids=str)
def test_pooling_bits_is_pooling_signs(window, size):
    # Windows of several pixels are seldom all negative, so most pixels are.
    x = torch.randn(2, 130, *size) - 1.5
    words = spec.code(x, None, 1, False, 1)
    signs = torch.where(x < 0, -1.0, 1.0)
    expected = spec.code(F.max_pool2d(signs, *window), None, 1, False, 1)
    assert_same(kernels.max_pool_bits(words, *window), expected)
    flip = torch.tensor([-1, 0b101, 1 << 40])
    flipped = kernels.max_pool_bits(words, *window, flip)
    assert_same(flipped, expected ^ flip.view(1, 3, 1, 1))
    for given in memories(words).values():
        # Words lie as pack leaves them; others may be refused.
        pool = functools.partial(kernels.max_pool_bits, given, *window)
        same_or_refused(pool, expected, "contiguous")
    assert kernels.max_pool_bits(words[:0], *window).shape == (0, *expected.shape[1:])
