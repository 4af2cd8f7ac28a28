"""PokeBNN beside its definition, written again in numpy with channels last, as its authors' is."""

import numpy as np
import pytest
import torch
from numpy.lib.stride_tricks import sliding_window_view
from torch import nn

import lowbit
from lowbit.models import PokeBNN
from lowbit.models.pokebnn import PokeBottleneck, PokeConv, Shortcut
from lowbit.nn import DPReLU, QConv2d, QLinear

SIGN = {"input_quantization": "ste_sign", "weight_quantization": "sign"}
OPTIONS = {
    "quantization": {**SIGN, "gradient_cancellation_threshold": None, "pad_value": 0},
    "se": {"read": None, "read_hidden": None, "weight": None},
}
SMALL = {"num_classes": 5, "multiplier": 0.25, "layers": (1, 1, 2, 1)}


def shaken(module: nn.Module) -> nn.Module:
    """In float64, so that no sign depends on rounding, with every parameter and statistic moved."""
    generator = torch.Generator().manual_seed(0)
    for name, value in [*module.named_parameters(), *module.named_buffers()]:
        if value.is_floating_point():
            noise = torch.rand(value.shape, generator=generator)
            value.data += 0.5 * noise - (0.0 if "running_var" in name else 0.25)
    return module.double().eval()


def images(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def array(value: torch.Tensor) -> np.ndarray:
    return value.detach().numpy()


# The reference: x is (n, h, w, c); kernels are torch's, (out, in, h, w).


def windows(x, k, stride):
    """SAME padding with zeros, of which the odd one stands at the end: (n, h', w', c, k, k)."""
    ends = []
    for size in x.shape[1:3]:
        total = max((-(-size // stride) - 1) * stride + k - size, 0)
        ends.append((total // 2, total - total // 2))
    x = np.pad(x, ((0, 0), *ends, (0, 0)))
    return sliding_window_view(x, (k, k), axis=(1, 2))[:, ::stride, ::stride]


def sign(x):
    return np.where(x >= 0, 1.0, -1.0)


def normalised(x, norm):
    mean, var, scale, shift = map(
        array, (norm.running_mean, norm.running_var, norm.weight, norm.bias)
    )
    return (x - mean) / np.sqrt(var + norm.eps) * scale + shift


def bent(x, act):
    positive, negative, alpha, eta = map(array, (act.positive, act.negative, act.alpha, act.eta))
    x = x - alpha
    return np.where(x >= 0, positive, negative) * x - eta


def added(y, r, tile):
    before, after = r.shape[3], y.shape[3]
    if before > after:
        group = before // after
        r = r[..., : after * group].reshape(*r.shape[:3], after, group).mean(4)
    elif tile:
        r = np.tile(r, (1, 1, 1, after // before))
    else:
        r = np.concatenate([r, np.zeros((*r.shape[:3], after - before))], 3)
    if r.shape != y.shape:
        r = windows(r, 3, 2).sum((4, 5)) / 9
    return y + r


def poke_conv(layer: PokeConv, x, r=None):
    weight = sign(array(layer.conv.weight.flip(2, 3)))
    y = np.einsum(
        "nhwcij,ocij->nhwo", windows(sign(x), weight.shape[2], layer.conv.stride[0]), weight
    )
    y = added(normalised(y, layer.bn), x, tile=False)
    y = bent(y if r is None else added(y, r, tile=True), layer.act)
    s = x.mean((1, 2))
    s = s @ array(layer.se.reduce.weight).T + array(layer.se.reduce.bias)
    s = np.maximum(s, 0) @ array(layer.se.expand.weight).T + array(layer.se.expand.bias)
    s = np.minimum(np.maximum(s + 3, 0), 6) / 6
    return normalised(y * s[:, None, None, :], layer.bn_end)


def network(model: PokeBNN, x):
    n, h, w, _ = x.shape
    weight = array(model.stem[0].weight.flip(2, 3))
    x = x.reshape(n, h // 4, 4, w // 4, 4, 3)
    x = np.einsum("nhiwjc,ocij->nhwo", x, weight)
    x = bent(normalised(x, model.stem[1]), model.stem[2])
    weight = array(model.stem[3].weight.flip(2, 3))
    group = weight.shape[0] // x.shape[3]
    x = np.repeat(windows(x, 3, 1), group, axis=3)
    x = np.einsum("nhwoij,oij->nhwo", x, weight[:, 0])
    x = bent(normalised(x, model.stem[4]), model.stem[5])
    for block in model.blocks:
        x = poke_conv(block.conv3, poke_conv(block.conv2, poke_conv(block.conv1, x)), x)
    return x.mean((1, 2)) @ array(model.fc.weight).T + array(model.fc.bias)


def turned(x: torch.Tensor) -> np.ndarray:
    """By 180 degrees, as the kernels of the reference are; channels last."""
    return array(x.flip(2, 3).permute(0, 2, 3, 1))


@pytest.mark.parametrize(
    ("before", "after", "kernel_size", "stride"),
    [(16, 16, 3, 1), (24, 8, 1, 1), (20, 8, 1, 1), (8, 32, 1, 1), (16, 16, 3, 2), (32, 8, 3, 2)],
)
@pytest.mark.parametrize("side", [6, 7])
def test_a_poke_conv_is_its_definition(before, after, kernel_size, stride, side):
    layer = shaken(PokeConv(before, after, kernel_size, stride, **OPTIONS))
    x = images(2, before, side, side)
    expected = poke_conv(layer, turned(x))
    np.testing.assert_allclose(turned(layer(x)), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("before", "stride"), [(8, 1), (32, 1), (16, 2), (64, 2)])
@pytest.mark.parametrize("side", [6, 7])
def test_a_bottleneck_adds_its_input_to_its_third_convolution(before, stride, side):
    block = shaken(PokeBottleneck(before, 8, stride, **OPTIONS))
    x = images(2, before, side, side)
    r = turned(x)
    expected = poke_conv(block.conv3, poke_conv(block.conv2, poke_conv(block.conv1, r)), r)
    np.testing.assert_allclose(turned(block(x)), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("side", [32, 40])
def test_it_is_the_authors_network_of_the_turned_image(side):
    model = shaken(PokeBNN(**SMALL, **SIGN))
    x = images(2, 3, side, side)
    expected = network(model, turned(x))
    np.testing.assert_allclose(array(model(x)), expected, rtol=1e-8, atol=1e-8)


def test_shortcuts_of_other_channels_keep_their_order():
    x = torch.arange(6.0).reshape(1, 6, 1, 1)
    kept = [Shortcut(6, 3, 1), Shortcut(6, 4, 1), Shortcut(6, 8, 1), Shortcut(6, 12, 1, "tile")]
    found = [shortcut(x).flatten().tolist() for shortcut in kept]
    assert found == [
        [0.5, 2.5, 4.5],
        [0, 1, 2, 3],
        [0, 1, 2, 3, 4, 5, 0, 0],
        [0, 1, 2, 3, 4, 5] * 2,
    ]


def test_the_mean_of_a_smaller_shortcut_counts_the_zeros_around():
    y = Shortcut(1, 1, 2)(torch.ones(1, 1, 4, 4))
    torch.testing.assert_close(9 * y[0, 0], torch.tensor([[4.0, 6.0], [6.0, 9.0]]))


def test_third_convolutions_start_at_their_shortcuts_alone():
    for name, module in PokeBNN(**SMALL).named_modules():
        if isinstance(module, PokeConv):
            assert bool(module.bn.weight.any()) != name.endswith("conv3")


def test_weights_start_with_the_variance_of_one_over_the_inputs():
    torch.manual_seed(0)
    model = PokeBNN(**SMALL)
    for layer in (model.blocks[-1].conv2.conv, model.blocks[-1].conv1.conv, model.fc):
        std = layer.weight[0].numel() ** -0.5
        assert layer.weight.std().item() == pytest.approx(std, rel=0.1)
        assert layer.weight.abs().max() <= 2 * std / 0.87


def test_each_kind_of_layer_has_its_own_quantizers():
    bits = {
        "end_input_quantization": {"name": "int_k", "bits": 8},
        "end_weight_quantization": {"name": "int_k", "bits": 7},
        "se_input_quantization": {"name": "int_k", "bits": 4},
        "se_hidden_quantization": {"name": "int_k", "bits": 5, "signed": False},
        "se_weight_quantization": {"name": "int_k", "bits": 3},
    }
    model = PokeBNN(**SMALL, **SIGN, **bits)
    found = {}
    for name, layer in model.named_modules():
        if isinstance(layer, QConv2d | QLinear):
            kind = name.rpartition(".")[2]
            kind = "end" if kind in "0 3 fc" else kind
            pair = (layer.input_quantization.bits, layer.weight_quantization.bits)
            found.setdefault(kind, set()).add(pair)
    assert found == {"end": {(8, 7)}, "conv": {(1, 1)}, "reduce": {(4, 3)}, "expand": {(5, 3)}}


def test_squeeze_and_excites_of_four_bits_pack_too():
    end = {"name": "int_k", "bits": 8, "range": "moving_average"}
    low = {"name": "int_k", "bits": 4, "range": "moving_average"}
    model = PokeBNN(
        **SMALL,
        **SIGN,
        end_input_quantization=end,
        end_weight_quantization={"name": "int_k", "bits": 8, "per_channel": True},
        se_input_quantization=low,
        se_hidden_quantization={**low, "signed": False},
        se_weight_quantization={"name": "int_k", "bits": 4, "per_channel": True},
    )
    x = images(4, 3, 32, 32).float()
    model.train()(x)  # the quantizers see ranges
    model = shaken(model).float()
    converted, report = lowbit.convert(model, keep_slower=True)
    packed = {row.name.rpartition(".")[2] for row in report if row.packed}
    assert packed >= {"conv", "reduce", "expand"}
    with torch.no_grad():
        expected, found = model(x), converted(x)
    size = float(expected.abs().max())
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4 * size)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"multiplier": 1.4}, "repeats its 64 channels, which does not make 356"),
        ({"multiplier": 0.1}, "multiplier must leave 8"),
        ({"layers": ()}, r"one to four stages; got \(\)"),
        ({"layers": (1, 1, 1, 1, 1)}, "one to four stages"),
    ],
)
def test_a_wrong_size_is_named(sizes, message):
    with torch.device("meta"), pytest.raises(ValueError, match=message):
        PokeBNN(**sizes)


def test_every_convolution_has_an_activation_of_its_own():
    with torch.device("meta"):
        model = PokeBNN()
    assert sum(isinstance(m, PokeConv) for m in model.modules()) == 48
    assert sum(isinstance(m, DPReLU) for m in model.modules()) == 50
