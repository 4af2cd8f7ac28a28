"""BNext: its layers beside the paper's formulas, and what its sizes are made of."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lowbit.models import BNext
from lowbit.models.bnext import SIZES, BNextBlock, Recoupled
from lowbit.nn import ChannelMix, QConv2d

SIGN = {"input_quantization": "rsign", "weight_quantization": "ste_sign"}
QUANTIZATION = {**SIGN, "gradient_cancellation_threshold": None, "pad_value": 0}


def drawn(module: nn.Module) -> nn.Module:
    """The module in float64, for evaluation, with parameters and statistics drawn."""
    generator = torch.Generator().manual_seed(0)
    for tensor in (*module.parameters(), *module.buffers()):
        if tensor.is_floating_point():
            tensor.data.uniform_(-0.6, 0.6, generator=generator)
    for child in module.modules():
        if isinstance(child, nn.BatchNorm2d):
            child.running_var += 1
        elif isinstance(child, ChannelMix):
            child.share.data.abs_()
    return module.double().eval()


def images(channels: int, side: int = 6) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(2, channels, side, side, generator=generator, dtype=torch.float64)


def reference(x, state, stride, multiplies):
    """A layer from its parameters alone."""

    def each(name):
        return state[name].reshape(1, -1, 1, 1)

    def sign(z):
        return torch.where(z >= 0, 1.0, -1.0).double()

    def norm(z, name):
        deviation = (each(f"{name}.running_var") + 1e-5) ** 0.5
        z = (z - each(f"{name}.running_mean")) / deviation
        return z * each(f"{name}.weight") + each(f"{name}.bias")

    def prelu(z, name):
        return z.clamp(min=0) + each(f"{name}.weight") * z.clamp(max=0)

    def pool(z):
        if stride == 1:
            return z
        return (z[..., ::2, ::2] + z[..., 1::2, ::2] + z[..., ::2, 1::2] + z[..., 1::2, 1::2]) / 4

    weight = sign(state["conv.weight"])
    shifted = x + each("conv.input_quantization.shift")
    y = F.conv2d(sign(shifted), weight, stride=stride, padding=weight.shape[-1] // 2)
    y = prelu(norm(y, "bn"), "act")
    share = each("mix.share")
    mean = (share * pool(x) + (1 - share) * y).mean((2, 3))
    hidden = mean @ state["scale.reduce.weight"].T + state["scale.reduce.bias"]
    gate = hidden.clamp(min=0) @ state["scale.expand.weight"].T + state["scale.expand.bias"]
    z = y / (1 + (-gate).exp())[..., None, None]
    if multiplies:
        shortcut = pool(prelu(x, "shortcut_act"))
        return norm(z * shortcut, "out_bn") + shortcut
    return norm(z, "out_bn") + pool(x)


@pytest.mark.parametrize("multiplies", [False, True])
@pytest.mark.parametrize(("kernel", "stride"), [(3, 1), (3, 2), (1, 1)])
def test_a_layer_is_gated_by_the_mix_of_its_input_and_its_output(kernel, stride, multiplies):
    layer = Recoupled(16, kernel, stride, multiplies=multiplies, quantization=QUANTIZATION)
    x = images(16)
    found = drawn(layer)(x)
    torch.testing.assert_close(found, reference(x, layer.state_dict(), stride, multiplies))


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("after", [8, 16])
def test_a_block_concatenates_what_its_1_x_1_layers_make_of_the_same(after, stride):
    block = drawn(BNextBlock(8, after, stride, multiplies=True, quantization=QUANTIZATION))
    x = images(8)
    y = reference(x, block.conv.state_dict(), stride, multiplies=True)
    made = [reference(y, point.state_dict(), 1, multiplies=False) for point in block.points]
    assert len(made) == after // 8
    torch.testing.assert_close(block(x), torch.cat(made, 1))


@pytest.mark.parametrize(
    ("size", "channels"),
    [
        ("tiny", [32, 64] + [128] * 2 + [256] * 2 + [512] * 6 + [1024] * 2),
        ("small", [48, 96] + [192] * 2 + [384] * 2 + [768] * 6 + [1536] * 2),
        ("middle", [48, 96] + [192] * 4 + [384] * 4 + [768] * 8 + [1536] * 4),
        ("large", [48, 96] + [192] * 4 + [384] * 4 + [768] * 16 + [1536] * 4),
        ("super", [64, 128] + [256] * 4 + [512] * 4 + [1024] * 16 + [2048] * 4),
    ],
)
def test_every_size_has_its_channels_and_halves_the_image_where_they_double(size, channels):
    with torch.device("meta"):
        model = BNext(size=size, **SIGN)
    assert model.stem[0].out_channels == channels[0]
    assert model.stem[0].stride == (2, 2)
    assert model.fc.in_features == channels[-1]
    assert len(model.blocks) == len(channels) - 1
    for index, block in enumerate(model.blocks):
        before, after = channels[index : index + 2]
        assert block.conv.conv.in_channels == before
        assert [point.conv.in_channels for point in block.points] == [before] * (after // before)
        halves = index > 0 and after != before
        assert block.conv.conv.stride == ((2, 2) if halves else (1, 1))
        assert block.conv.multiplies == (index % 2 == 1)
        assert not any(point.multiplies for point in block.points)


def test_binary_weights_start_around_0_with_a_deviation_of_a_thousandth():
    model = BNext(width=16, blocks=(1,), **SIGN)
    layers = [m for m in model.modules() if isinstance(m, QConv2d)]
    weights = torch.cat([layer.weight.flatten() for layer in layers])
    assert weights.std().item() == pytest.approx(1e-3, rel=0.05)
    assert abs(weights.mean().item()) < 1e-4
    assert {layer.pad_value for layer in layers} == {0.0}


def test_an_image_of_odd_sides_is_halved_upwards():
    model = BNext(width=8, blocks=(1, 1), stem_stride=1, **SIGN).eval()
    assert model.blocks(model.stem(torch.randn(1, 3, 13, 9))).shape == (1, 64, 4, 3)


def test_an_unknown_size_is_named():
    with pytest.raises(ValueError, match=f"size is one of {', '.join(SIZES)}; got 'huge'"):
        BNext(size="huge")
