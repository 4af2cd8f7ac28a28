"""Which layers are packed on which instruction set."""

import pytest
import torch
from torch import nn

import lowbit
from lowbit import kernels
from lowbit.convert import _worth
from lowbit.nn import QConv2d, QLinear
from tests.convert._networks import SIGN, shaken


def worth(monkeypatch, isa, layer, float_lanes="AVX512", **options):
    """Why the layer stays on an instruction set, which need not be one of this machine."""
    monkeypatch.setattr(kernels, "isa", lambda: isa)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: float_lanes)
    packed = lowbit.nn.packed.from_trained(layer) if options.pop("coded", False) else None
    geometry = None if packed is None else packed.geometry
    return _worth.slower_than_float(layer, geometry, **options)


@pytest.mark.parametrize("isa", ["avx512_vpopcntdq", "avx512bw", "avx2", "neon_dot", "neon"])
@pytest.mark.parametrize(
    ("layer", "why"),
    [
        (QConv2d(64, 64, 3, **SIGN), ""),
        (QConv2d(64, 64, 1, **SIGN), ""),
        (QConv2d(64, 16, 1, **SIGN), "1024 products a place, fewer than 4096"),
        (QConv2d(16, 16, 3, **SIGN), "2304 products a place"),
        (QConv2d(8, 64, 3, **SIGN), "8 input channels a group, fewer than 16"),
        (QConv2d(128, 128, 3, groups=16, **SIGN), "8 input channels a group"),
        (QConv2d(128, 128, 3, groups=8, **SIGN), "2304 products a place"),
        (QLinear(256, 256, **SIGN), ""),
        (QLinear(64, 64, **SIGN), "4096 products a row, fewer than 65536"),
        (QLinear(2048, 10, **SIGN), "20480 products a row"),
    ],
)
def test_small_layers_stay_in_float(monkeypatch, isa, layer, why):
    said = worth(monkeypatch, isa, layer)
    why = "" if "a place" in why and isa == "avx512_vpopcntdq" else why
    assert why in said
    assert bool(said) == bool(why)
    if why:
        assert f" on {isa} " in said
        assert "keep_slower=True" in said


def test_words_one_at_a_time_lose_to_vectors_of_floats(monkeypatch):
    deep, usual = QConv2d(256, 256, 3, **SIGN), QConv2d(128, 128, 3, **SIGN)
    assert not worth(monkeypatch, "scalar", deep)
    assert "fewer than 2304 on scalar" in worth(monkeypatch, "scalar", usual)
    assert not worth(monkeypatch, "scalar", usual, float_lanes="DEFAULT")
    assert not worth(monkeypatch, "scalar", QLinear(512, 256, **SIGN))
    assert "on scalar" in worth(monkeypatch, "scalar", QLinear(128, 1024, **SIGN))
    assert "32 outputs, fewer than 64" in worth(monkeypatch, "scalar", QLinear(2048, 32, **SIGN))


def test_without_a_compiled_library_layers_are_packed_all_the_same(monkeypatch):
    assert not worth(monkeypatch, "reference", QLinear(64, 64, **SIGN))


def test_thresholds_must_be_outweighed_by_products(monkeypatch):
    def layer(outputs, kernel, bits, channels=64):
        inputs = {"name": "dorefa_input", "bits": bits}
        return QConv2d(channels, outputs, kernel, **{**SIGN, "input_quantization": inputs})

    for isa, bits in (("avx512_vpopcntdq", 4), ("avx2", 2)):
        assert not worth(monkeypatch, isa, layer(64, 3, bits), coded=True)
        assert "8 binary products for one" in worth(monkeypatch, isa, layer(64, 3, 8), coded=True)
    assert "15 thresholds of an input, more than 3 on avx2" in worth(
        monkeypatch, "avx2", layer(64, 3, 4), coded=True
    )
    assert "15 thresholds of an input, more than 7" in worth(
        monkeypatch, "avx512_vpopcntdq", layer(64, 1, 4), coded=True
    )
    assert not worth(monkeypatch, "avx2", layer(256, 3, 4, channels=256), coded=True)


def mlp(norm: bool) -> nn.Module:
    layers = [nn.Flatten(), nn.Linear(64, 256), QLinear(256, 64, **SIGN)]
    return shaken(nn.Sequential(*layers, *([nn.BatchNorm1d(64)] if norm else []), nn.ReLU()))


@pytest.mark.parametrize("isa", kernels.isas())
def test_a_small_linear_layer_is_packed_with_its_batch_norm(monkeypatch, isa):
    if kernels.available():
        monkeypatch.setenv("LOWBIT_ISA", isa)
    slow = isa == "scalar" and _worth.least()[0] is _worth.SCALAR
    for norm in (False, True):
        expected = isa == "reference" or (norm and not slow)
        model = mlp(norm)
        converted, report = lowbit.convert(model)
        assert report[0].packed == expected
        unfolded = lowbit.convert(model, fold=False).report
        assert unfolded[0].packed == (isa == "reference")
        x = torch.randn(5, 8, 8)
        torch.testing.assert_close(converted(x), model(x), rtol=1e-5, atol=1e-5)


def test_for_a_gpu_layers_must_beat_float16_there():
    wide = QConv2d(256, 64, 3, **SIGN)
    narrow = QConv2d(128, 64, 3, **SIGN)
    with _worth.for_gpu(True):
        assert _worth.kernel() == "cuda"
        assert _worth.slower_than_float(wide) == ""
        assert "1152 products an output, fewer than 2304 on cuda" in _worth.slower_than_float(
            narrow
        )
        assert _worth.slower_than_float(QLinear(2048, 10, **SIGN)) == ""
        assert "fewer than 2048 on cuda" in _worth.slower_than_float(QLinear(1024, 4096, **SIGN))
    assert _worth.kernel() == kernels.isa()
