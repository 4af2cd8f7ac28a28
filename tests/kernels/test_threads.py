"""Results do not depend on threads: torch's own, or several calls at once."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from lowbit import kernels
from lowbit.functional import packed_conv as spec
from lowbit.functional.packed_conv import AFFINE, RESIDUAL
from lowbit.kernels import Geometry
from tests.kernels._layers import assert_same, drawn, layer_of, sums


@pytest.fixture(autouse=True)
def _threads_again():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


LAYERS = {
    "images": (8, (14, 15), Geometry.of(130, 70, 1, (3, 3), (1, 1), (1, 1), (1, 1), pad=0)),
    "one image": (1, (28, 29), Geometry.of(64, 128, 1, (3, 3), (2, 1), (1, 1), (1, 1))),
    "one pixel": (1, (1, 1), Geometry.of(512, 320, 1, (3, 3), (1, 1), (1, 1), (1, 1))),
    "groups": (3, (9, 33), Geometry.of(192, 192, 3, (3, 3), (1, 1), (1, 1), (1, 1))),
    "rows": (130, (), Geometry.of(520, 300)),
    "one row": (1, (), Geometry.of(2048, 1030)),
    "volume": (2, (5, 6, 7), Geometry.of(33, 65, 1, (2, 3, 3), planes_x=2, planes_w=2)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_as_many_threads_as_there_are_results_are_the_same(isa, name):
    n, spatial, g = LAYERS[name]
    layer = layer_of(g, spatial, n)
    v, panel = layer.expected(), layer.panel(isa)
    params, residual, steps = torch.randn(3, g.out_channels), torch.randn(v.shape), [1, 3]
    assert steps == [AFFINE, RESIDUAL]
    given = (panel, params, layer.thresholds, residual, g, steps)
    y, bits = spec.packed_conv_both(layer.x, layer.words, *given[1:])
    for threads in (1, 2, 3, 4):
        torch.set_num_threads(threads)
        for channels_last in (False, True):
            for packed in (False, True):
                got = layer.run(isa, channels_last=channels_last, panel=panel, packed=packed)
                assert_same(got, v)
            both = kernels.bconv_both(layer.x, *given, channels_last)
            assert_same(both[0], y)
            assert_same(both[1], bits)


@pytest.mark.parametrize("shape", [(64, 4608), (1, 130, 150, 151), (3, 256, 40, 41)], ids=str)
def test_packing_and_pooling(isa, monkeypatch, shape):
    monkeypatch.setenv("LOWBIT_ISA", isa)
    x = torch.randn(shape)
    expected = spec.code(x, None, 1, False, 1)
    window = ((3, 3), (2, 2), (1, 1), (1, 1))
    for threads in (1, 2, 3, 4):
        torch.set_num_threads(threads)
        given = [x]
        if x.ndim == 4:
            given.append(x.contiguous(memory_format=torch.channels_last))
        for one in given:
            assert_same(kernels.pack(one), expected)
        if x.ndim == 4:
            pooled = kernels.max_pool_bits(expected, *window)
            assert_same(pooled, spec.max_pool_bits(expected, *window, False, None))


def test_several_calls_at_once(isa):
    seeds = range(1, 16)
    layers = [(drawn(seed), sums(seed), drawn(seed).panel(isa)) for seed in seeds]

    def ten_times(i: int) -> None:
        for turn in range(10):
            layer, v, panel = layers[(i + turn) % len(layers)]
            assert_same(layer.run(isa, panel=panel), v)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(ten_times, range(12)))
