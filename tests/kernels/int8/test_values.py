"""Every operator against its specification, bit for bit."""

import pytest
import torch

from lowbit.kernels import int8
from lowbit.kernels.int8 import _onednn, _ops
from tests.kernels.int8._layers import KERNELS, Layer, drawn

pytestmark = pytest.mark.skipif(not int8.available(), reason=f"no kernel: {int8.why_not()}")


@pytest.mark.parametrize("seed", range(60))
@pytest.mark.parametrize("kind", KERNELS)
def test_kernels_give_the_specifications_bits(kind, seed):
    layer = drawn(kind, seed)
    expected, found = layer.expected(), layer.found()
    assert found.dtype == expected.dtype
    assert found.shape == expected.shape
    assert torch.equal(found, expected)


def test_the_drawn_layers_are_computed_by_onednn(monkeypatch):
    calls = []
    for name in ("linear", "conv"):
        real = getattr(_onednn, name)

        def counted(*arguments, real=real):
            calls.append(real)
            return real(*arguments)

        monkeypatch.setattr(_onednn, name, counted)
    layers = [drawn(kind, seed) for kind in KERNELS for seed in range(20)]
    symmetric = [
        layer
        for layer in layers
        if (zero := layer.arguments["w_zero_points"]) is None or not torch.as_tensor(zero).any()
    ]
    for layer in layers:
        layer.by_onednn()
    assert len(calls) == len(symmetric) > 30


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_a_convolution_is_channels_last_whoever_computes_it(dims, monkeypatch):
    layer = drawn("conv", 3, dims).but(out_dtype=torch.uint8, residual=None, w_zero_points=None)
    fast = layer.found()
    monkeypatch.setattr(_ops, "_packed", lambda *_: None)
    slow = layer.found()
    assert fast.stride() == slow.stride()
    assert fast.movedim(1, -1).is_contiguous()
    assert torch.equal(fast, slow)


@pytest.mark.parametrize("kind", KERNELS)
def test_an_empty_batch_gives_an_empty_result(kind):
    layer = next(x for s in range(99) if "residual" not in (x := drawn(kind, s)).arguments)
    x = layer.arguments["x"][None][:0] if kind == "linear" else layer.arguments["x"][:0]
    layer = layer.but(x=x)
    assert layer.found().shape == layer.expected().shape
    assert layer.found().numel() == 0


def test_sums_past_int32_take_the_exact_path():
    k = 70_000
    x = torch.full((1, k), 255, dtype=torch.uint8)
    weight = torch.full((1, k), -128, dtype=torch.int8)
    y = int8.linear(x, 1.0, 0, weight, 1.0, out_dtype=torch.float32)
    assert y.item() == torch.tensor(-128 * 255 * k, dtype=torch.float32).item()


def test_an_unused_residual_scale_is_not_looked_at():
    layer = drawn("linear", 4).but(residual=None, residual_scale=-1.0)
    assert torch.equal(layer.found(), layer.expected())


@pytest.mark.parametrize("value", [torch.inf, -torch.inf, 1e30, -1e30])
@pytest.mark.parametrize("out_dtype", [torch.uint8, torch.int8, torch.float32])
def test_huge_values_saturate(value, out_dtype):
    layer = drawn("linear", 0).but(residual=None, w_zero_points=None, relu=False)
    channels = layer.arguments["weight"].shape[0]
    layer = layer.but(
        bias=torch.full((channels,), value), out_dtype=out_dtype, out_scale=0.1, out_zero_point=7
    )
    assert torch.equal(layer.found(), layer.expected())
    if out_dtype != torch.float32:
        info = torch.iinfo(out_dtype)
        assert set(layer.found().flatten().tolist()) == {info.max if value > 0 else info.min}


def test_the_input_the_residual_and_the_weight_are_left_alone():
    for kind in KERNELS:
        for seed in range(10):
            layer = drawn(kind, seed)
            tensors = {
                k: (v, v.clone()) for k, v in layer.arguments.items() if isinstance(v, torch.Tensor)
            }
            layer.found()
            for name, (tensor, before) in tensors.items():
                assert torch.equal(tensor, before), name


@pytest.mark.parametrize("kernel", [2, 3])
@pytest.mark.parametrize("channels", [15, 17, 20, 33, 48, 64])
@pytest.mark.parametrize("groups", [1, 2, 5])
def test_several_outputs_of_one_input_channel_are_right(groups, channels, kernel):
    """oneDNN alone gets many of these wrong, by whole multiples of the zero point."""
    generator = torch.Generator().manual_seed(0)
    for size in (5, 6, 9, 14):
        x = torch.randint(0, 256, (1, groups, size, size), generator=generator).to(torch.uint8)
        weight = torch.randint(
            *(-128, 128, (groups * channels, 1, kernel, kernel)), generator=generator
        ).to(torch.int8)
        layer = Layer(
            "conv",
            {
                "x": x,
                "x_scale": 0.1,
                "x_zero_point": 215,
                "weight": weight,
                "w_scales": 0.1,
                "padding": 1,
                "groups": groups,
                "out_dtype": torch.float32,
            },
        )
        assert torch.equal(layer.found(), layer.expected())


@pytest.mark.parametrize("channels", [3, 16, 33])
def test_channels_one_by_one_in_three_dimensions_have_the_specifications_bits(channels):
    """oneDNN's kernel for them rounds in another order."""
    drawn_ones = (drawn("conv", seed, 3) for seed in range(400))
    layers = [layer for layer in drawn_ones if layer.arguments["groups"] == channels]
    assert len(layers) > 3
    for layer in layers:
        layer = layer.but(out_dtype=torch.float32)
        assert torch.equal(layer.found(), layer.expected())


def test_a_transposed_convolution_may_be_all_padding():
    layer = drawn("conv_transpose", 1, 1).but(
        stride=1,
        padding=3,
        output_padding=9,
        dilation=10,
        groups=1,
        x=torch.full((1, 2, 1), 9, dtype=torch.uint8),
        x_zero_point=4,
        weight=torch.ones(2, 3, 1).to(torch.int8),
        w_scales=1.0,
        w_zero_points=None,
        bias=torch.arange(3.0),
        out_dtype=torch.float32,
        relu=False,
    )
    assert layer.found().tolist() == [[[0.0] * 4, [1.0] * 4, [2.0] * 4]]
    assert torch.equal(layer.found(), layer.expected())
