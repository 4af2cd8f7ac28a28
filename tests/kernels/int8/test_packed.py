"""Packed weights: kept while the weight lives and is not written to, and no longer."""

import copy
import gc
import pickle

import pytest
import torch

from lowbit.kernels import int8
from lowbit.kernels.int8 import _packed
from tests.kernels.int8._layers import KERNELS, Layer, drawn

pytestmark = pytest.mark.skipif(not int8.available(), reason=f"no kernel: {int8.why_not()}")


@pytest.fixture
def packings(monkeypatch) -> list[object]:
    """What has been packed, by use, from now on."""
    assert int8.available()  # its trials pack weights of their own
    packed: list[object] = []
    get = _packed.Packed._get

    def counted(self, use, pack):
        return get(self, use, lambda: (packed.append(use), pack())[1])

    monkeypatch.setattr(_packed.Packed, "_get", counted)
    return packed


def symmetric(kind: str) -> Layer:
    """A layer that oneDNN computes, with a weight of its own."""
    layer = drawn(kind, 5).but(w_zero_points=None, out_dtype=torch.float32)
    return layer.but(weight=layer.arguments["weight"].clone())


@pytest.mark.parametrize("kind", KERNELS)
def test_a_weight_is_packed_once(kind, packings):
    layer = symmetric(kind)
    for _ in range(3):
        layer.by_onednn()
    assert len(packings) == 1


@pytest.mark.parametrize("kind", KERNELS)
def test_a_weight_that_was_written_to_is_packed_again(kind, packings):
    layer = symmetric(kind)
    layer.by_onednn()
    before = layer.expected()
    layer.arguments["weight"].neg_().sub_(1)
    assert not torch.equal(layer.expected(), before)
    assert torch.equal(layer.by_onednn(), layer.expected())
    assert len(packings) == 2


@pytest.mark.parametrize("kind", KERNELS)
def test_a_weight_without_a_version_is_compared(kind, packings):
    with torch.inference_mode():
        layer = symmetric(kind)
        assert layer.arguments["weight"].is_inference()
        for _ in range(3):
            layer.by_onednn()
        assert len(packings) == 1
        layer.arguments["weight"].neg_().sub_(1)
        assert torch.equal(layer.by_onednn(), layer.expected())
    assert len(packings) == 2


@pytest.mark.parametrize("kind", KERNELS)
def test_nothing_is_kept_of_a_weight_that_is_gone(kind):
    gc.collect()
    before = len(_packed._entries)
    layer = symmetric(kind)
    layer.by_onednn()
    assert len(_packed._entries) == before + 1
    del layer
    gc.collect()
    assert len(_packed._entries) == before


def test_a_weight_at_the_address_of_one_that_is_gone_is_another(monkeypatch):
    layer, other = symmetric("linear"), symmetric("linear")
    layer.by_onednn()
    key = (id(layer.arguments["weight"]), 0)
    other = other.but(weight=-1 - other.arguments["weight"])
    monkeypatch.setitem(_packed._entries, (id(other.arguments["weight"]), 0), _packed._entries[key])
    assert torch.equal(other.by_onednn(), other.expected())


def test_scales_and_zero_points_may_change_under_a_packed_weight():
    layer = symmetric("conv").but(residual=None)
    layer.by_onednn()
    for zero_point in (0, 1, 120):
        changed = layer.but(w_scales=0.37, x_scale=0.9, x_zero_point=zero_point)
        assert torch.equal(changed.by_onednn(), changed.expected())


def test_one_weight_serves_images_of_many_sizes(packings):
    layer = symmetric("conv")
    layer.arguments.pop("residual", None)
    x = layer.arguments["x"]
    for _ in range(2):
        for size in range(6, 9 + _packed.KEPT):
            image = x.new_full((1, x.shape[1], *[size] * (x.ndim - 2)), 77)
            changed = layer.but(x=image)
            assert torch.equal(changed.by_onednn(), changed.expected())
    (entry,) = [e for e in _packed._entries.values() if e.is_of(layer.arguments["weight"])]
    assert len(entry._packed) == _packed.KEPT


def test_a_weight_serves_a_convolution_and_its_transpose():
    weight = torch.randint(-128, 128, (6, 6, 3, 3)).to(torch.int8)
    x = torch.randint(0, 256, (1, 6, 7, 7)).to(torch.uint8)
    shared = {"x": x, "x_scale": 0.1, "x_zero_point": 3, "weight": weight, "w_scales": 0.1}
    for _ in range(2):
        for kind in ("conv", "conv_transpose"):
            layer = Layer(kind, shared | {"out_dtype": torch.float32, "stride": 2})
            assert torch.equal(layer.by_onednn(), layer.expected())


def test_a_used_weight_is_saved_and_copied_as_what_it_is():
    layer = symmetric("conv")
    layer.by_onednn()
    weight = layer.arguments["weight"]
    for again in (copy.deepcopy(weight), pickle.loads(pickle.dumps(weight))):
        assert torch.equal(again, weight)
        assert vars(again) == {}
        assert torch.equal(layer.but(weight=again).by_onednn(), layer.expected())
