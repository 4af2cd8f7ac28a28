"""Linear layers of lowbit's own: the bits of the specification on every instruction set."""

import gc
import weakref

import pytest
import torch

from lowbit import kernels
from lowbit.functional.int8 import linear as specification
from lowbit.kernels import int8
from lowbit.kernels.int8 import _tiles
from tests.kernels.int8._layers import drawn

pytestmark = pytest.mark.skipif(
    not kernels.available(), reason="lowbit has no compiled library here"
)


@pytest.fixture(params=kernels.isas())
def isa(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("LOWBIT_ISA", request.param)
    return request.param


def integers(low, high, *shape, seed=0):
    """Most at the ends, where pairs of products overflow 16 bits."""
    generator = torch.Generator().manual_seed(seed)
    wide = torch.randint(2 * low - high, 2 * high - low, shape, generator=generator)
    return wide.clamp(low, high)


@pytest.mark.parametrize("seed", range(60))
def test_drawn_layers(seed, isa):
    layer = drawn("linear", seed)
    assert torch.equal(layer.found(), layer.expected())


@pytest.mark.parametrize("rows", [1, 2, 5, 6, 8, 33, 300])
@pytest.mark.parametrize("shape", [(1, 1), (48, 64), (50, 100), (130, 257)])
def test_any_number_of_rows(rows, shape, isa):
    x = integers(0, 255, rows, shape[1]).to(torch.uint8)
    weight = integers(-128, 127, *shape, seed=1).to(torch.int8)
    arguments = (x, 0.1, 77, weight, 0.01)
    found = int8.linear(*arguments, out_dtype=torch.float32)
    expected = specification.linear(*arguments, out_dtype=torch.float32)
    assert torch.equal(found, expected)


def call(weight):
    x = integers(0, 255, 3, weight.shape[1]).to(torch.uint8)
    return int8.linear(x, 0.1, 3, weight, 0.01, out_dtype=torch.float32)


def fresh():
    return integers(-128, 127, 60, 40).to(torch.int8)


def test_a_weight_is_packed_once_and_gone_with_it():
    weight = fresh()
    first = _tiles.tiles(weight)
    call(weight)
    assert _tiles.tiles(weight) is first
    key, alive = id(weight), weakref.ref(weight)
    assert key in _tiles._kept
    del weight
    gc.collect()
    assert alive() is None
    assert key not in _tiles._kept


def test_a_weight_that_was_written_to_is_packed_again():
    weight = fresh()
    before = call(weight)
    weight.neg_()
    assert not torch.equal(call(weight), before)
    assert torch.equal(call(weight), call(weight.clone()))


def test_a_weight_of_inference_mode_may_be_written_to():
    with torch.inference_mode():
        weight = fresh()
        call(weight)
        weight.zero_()
        assert not call(weight).any()
    assert _tiles.tiles(weight) is None


def test_a_packed_weight_of_another_instruction_set_is_not_used(monkeypatch):
    weight, isas = fresh(), kernels.isas()
    expected = call(weight)
    for made in isas:
        monkeypatch.setenv("LOWBIT_ISA", made)
        packed = torch.ops.lowbit.int8_pack.default(weight)
        for now in isas:
            monkeypatch.setenv("LOWBIT_ISA", now)
            x = integers(0, 255, 3, 40).to(torch.uint8)
            rest = (torch.tensor([0.01]), None, None, 1.0, 0, torch.float32, False, None, 1.0, 0)
            y = torch.ops.lowbit.qlinear.default(x, 0.1, 3, weight, *rest, packed)
            assert torch.equal(y, expected)


def test_a_packed_weight_of_another_shape_is_refused():
    packed = _tiles.tiles(fresh())
    if packed is None:
        pytest.skip("this instruction set takes weights as they lie")
    rest = (torch.tensor([0.01]), None, None, 1.0, 0, torch.float32, False, None, 1.0, 0)
    x = torch.zeros(3, 40, dtype=torch.uint8)
    with pytest.raises(RuntimeError, match="packed is of another weight"):
        torch.ops.lowbit.qlinear.default(x, 0.1, 3, fresh()[:50], *rest, packed)


def test_opcheck_of_packing():
    torch.library.opcheck(torch.ops.lowbit.int8_pack.default, (fresh(),))
