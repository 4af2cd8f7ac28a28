"""Packed layers give what trained layers give in evaluation."""

import copy
import io
import pickle

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lowbit import kernels, quantizers
from lowbit.functional import packing
from lowbit.nn import (
    QConv1d,
    QConv2d,
    QConv3d,
    QConvTranspose2d,
    QEmbedding,
    QEmbeddingBag,
    QLinear,
)
from lowbit.nn.packed import (
    PACKED,
    TABLES,
    CannotPack,
    PackedConv2d,
    PackedEmbedding,
    PackedLinear,
    PackedMaxPool2d,
    _inputs,
    from_trained,
)

# What has no packed form, by name and place, and a word of the reason.
NOT_PACKED = {
    "input": {
        **dict.fromkeys(
            [
                "absmax_int8",
                "adabin_weight",
                "apot",
                "bireal_weight",
                "bitnet_binary",
                "bitnet_ternary",
                "dorefa_gradient",
                "dorefa_weight",
                "int_k",
                "libra",
                "magnitude_aware_sign",
                "rbnn_rotate",
                "recu",
                "siman",
                "ttq",
                "twn",
                "xnor",
            ],
            "depends on the data",
        ),
        **dict.fromkeys(["identity", "tanh"], "more than 256 values"),
        "lq": "different values",
    },
    # absmax_int8 scales rows of a kernel; those of a linear weight are its channels.
    "weight": dict.fromkeys(["absmax_int8", "identity", "lq", "tanh"], "no uniform grid"),
}
VARIANTS = {
    "input": [
        {"name": "sign", "sign_zero": "ternary"},
        {"name": "rbnn_poly", "activation": True},
        {"name": "elastic_sign", "shifted": True},
        {"name": "elastic_sign", "signed": False},
        {"name": "adabin_input", "form": "paper"},
        {"name": "dorefa_input", "bits": 1},
        {"name": "dorefa_input", "bits": 5},
        {"name": "dorefa_input", "bits": 8},
        {"name": "pact", "bits": 2},
        {"name": "lsq", "bits": 2, "signed": False},
        {"name": "lsq", "bits": 8},
        {"name": "lsq_plus", "bits": 3, "signed": False},
        {"name": "int_k", "bits": 2, "range": "learned"},
        {"name": "int_k", "bits": 4, "range": "learned", "symmetric": False, "signed": False},
        {"name": "int_k", "bits": 3, "range": "moving_average", "narrow_range": True},
        {"name": "ste_tern", "threshold": 0.5},
        {"name": "hwgq", "centres": (0.5, 1.0)},
    ],
    "weight": [
        {"name": "sign", "sign_zero": "ternary"},
        {"name": "dorefa_weight", "bits": 2},
        {"name": "dorefa_weight", "bits": 8},
        {"name": "elastic_sign", "signed": False},
        {"name": "lsq", "bits": 2},
        {"name": "lsq", "bits": 3, "per_channel": True},
        {"name": "lsq_plus", "bits": 2, "per_channel": True},
        {"name": "int_k", "bits": 2},
        {"name": "int_k", "bits": 4, "per_channel": True},
        {"name": "int_k", "bits": 4, "per_channel": True, "symmetric": False},
        {"name": "int_k", "bits": 8, "range": "learned"},
        {"name": "twn", "granularity": "channel"},
        {"name": "xnor", "act_scale": True},
        {"name": "apot", "bits": 2},
    ],
}
PAIRS = [
    (place, spec)
    for place in ("input", "weight")
    for spec in [*quantizers.names(), *VARIANTS[place]]
]


def trained(kind, *args, inputs="sign", weights="sign", **options):
    """A layer whose quantizers have taken their values from data, and some more by chance."""
    layer = kind(*args, input_quantization=inputs, weight_quantization=weights, **options)
    dims = len(getattr(layer, "kernel_size", ()))
    layer(torch.randn(4, args[0], *[9] * dims))
    for quantizer in (layer.input_quantization, layer.weight_quantization):
        for name, parameter in quantizer.named_parameters():
            moved = torch.rand_like(parameter) if "scale" in name or "step" in name else 0.3
            moved = 0.7 + 0.3 * moved if "scale" in name or "step" in name else moved
            with torch.no_grad():
                if "shift" in name or "offset" in name or "zero_point" in name:
                    parameter.copy_(moved * torch.randn_like(parameter))
                else:
                    parameter.mul_(moved)
    return layer.eval()


def numbers(*shape):
    """Numbers with what quantizers get wrong: zeros of both signs, infinities, halfway points."""
    x = torch.randn(shape)
    special = [0.0, -0.0, torch.inf, -torch.inf, 1e-45, -1e-45, 0.5, -0.5, 1.0, -1.0]
    places = torch.randint(0, x.numel(), (max(x.numel() // 5, 1),))
    x.view(-1)[places] = torch.tensor(special)[torch.randint(0, len(special), places.shape)]
    return x


def exactly(layer, x):
    """The output in float64 from the layer's quantized tensors, and the total of the largest."""
    with torch.no_grad():
        xq, wq = layer._quantized_input(x).double(), layer._quantized_weight().double()
        twin = copy.deepcopy(layer).double()
        y = twin._op(xq, wq, None)
        twin.pad_value = abs(getattr(twin, "pad_value", 0))
        largest = wq.flatten(1).abs().amax(1).view(-1, *[1] * (wq.ndim - 1))
        size = twin._op(xq * 0 + xq.abs().amax(), largest.expand_as(wq), None)
        if layer._is_input_scaled():
            magnitude = twin._input_magnitude(x.double())
            y, size = y * magnitude, size * magnitude
        if layer.bias is not None:
            y = twin._plus_bias(y)
            size = twin._plus_bias(size).abs()
    return y, size.abs()


def assert_equal_to_rounding(got, layer, x, units=4):
    """Equal to the exact output within a few roundings of as many of the largest products."""
    exact, size = exactly(layer, x)
    assert got.shape == exact.shape
    assert bool(((got.double() - exact).abs() <= units * 2**-24 * size + 1e-30).all())
    with torch.no_grad():
        torch.testing.assert_close(got, layer(x), rtol=2e-5, atol=2e-4)


@pytest.mark.parametrize(("place", "spec"), PAIRS, ids=str)
@pytest.mark.parametrize("kind", [QConv2d, QLinear])
def test_a_quantizer_packs_or_says_why(kind, place, spec):
    name = spec if isinstance(spec, str) else spec["name"]
    options = {"inputs": spec} if place == "input" else {"weights": spec}
    shape = (20, 6, 3) if kind is QConv2d else (20, 6)
    around = {"padding": 1} if kind is QConv2d else {}
    layer = trained(kind, *shape, **around, **options)
    scales_rows = (kind, place, name) == (QLinear, "weight", "absmax_int8")
    if isinstance(spec, str) and name in NOT_PACKED[place] and not scales_rows:
        with pytest.raises(CannotPack, match=NOT_PACKED[place][name]):
            from_trained(layer)
        return
    packed = from_trained(layer)
    x = numbers(3, 20, 7, 8) if kind is QConv2d else numbers(9, 20)
    if layer._is_input_scaled():
        x = torch.randn(x.shape)  # an infinite input has an infinite scale
    x = torch.where(layer.input_quantization(x).isnan(), 0.3, x)  # as some give for infinities
    # Sharper than any quantizer's step: all that differs is rounding.
    assert_equal_to_rounding(packed(x), layer, x)
    assert packed.plain or packed.terms or packed.act_scale


@pytest.mark.parametrize("place", ["input", "weight"])
def test_every_two_level_quantizer_of_fixed_values_packs(place):
    for name in quantizers.names():
        spec = {"inputs": name} if place == "input" else {"weights": name}
        layer = trained(QLinear, 20, 6, **spec)
        quantizer = layer.input_quantization if place == "input" else layer.weight_quantization
        if quantizer.two_level and NOT_PACKED[place].get(name) is None:
            assert from_trained(layer).geometry[-4:] in ((1, 1, 0, 0), (1, 2, 0, 1))


GEOMETRIES = [
    {},
    {"padding": 1},
    {"padding": 2, "stride": 2, "dilation": 2},
    {"padding": "same", "kernel": 2},
    {"padding": "same", "kernel": 4, "dilation": 2},
    {"padding": "valid"},
    {"padding": 1, "groups": 2},
    {"padding": 1, "groups": 4, "bias": False},
    {"padding": 1, "padding_mode": "reflect"},
    {"padding": 2, "padding_mode": "circular"},
    {"padding": 1, "padding_mode": "replicate", "stride": 2},
]
CODES = [
    ("sign", "sign"),
    ("rsign", "magnitude_aware_sign"),
    ({"name": "lsq", "bits": 2}, "ttq"),
    ({"name": "lsq_plus", "bits": 2}, {"name": "lsq", "bits": 2}),
    ("adabin_input", "adabin_weight"),
]


@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
@pytest.mark.parametrize("codes", CODES, ids=str)
def test_every_geometry(dims, geometry, codes):
    if geometry.get("padding_mode") == "reflect" and dims == 3:
        geometry = {**geometry, "padding": (1, 0, 1)}
    options = dict(geometry)
    kernel = options.pop("kernel", 3)
    kind = (QConv1d, QConv2d, QConv3d)[dims - 1]
    layer = trained(kind, 8, 12, kernel, inputs=codes[0], weights=codes[1], **options)
    x = numbers(2, 8, *(9, 6, 7)[:dims])
    assert_equal_to_rounding(from_trained(layer)(x), layer, x)


@pytest.mark.parametrize("pad_value", [-1.0, 0.0, 1.0])
@pytest.mark.parametrize("inputs", ["sign", "elastic_sign", "hwgq", "adabin_input", "pact"])
@pytest.mark.parametrize("weights", ["sign", "twn", "adabin_weight"])
def test_every_pad_value(pad_value, inputs, weights):
    layer = trained(
        QConv2d, 20, 6, 3, padding=(1, 2), pad_value=pad_value, inputs=inputs, weights=weights
    )
    x = numbers(2, 20, 5, 6)
    assert_equal_to_rounding(from_trained(layer)(x), layer, x)


def test_signs_and_unit_scales_are_equal_bit_for_bit():
    layer = trained(QConv2d, 70, 65, 3, padding=1, bias=False)
    x = numbers(2, 70, 6, 6)
    with torch.no_grad():
        assert torch.equal(from_trained(layer)(x), layer(x))


def test_thresholds_are_right_to_the_last_bit():
    layer = trained(QLinear, 40, 3, inputs="rsign")
    packed = from_trained(layer)
    t = packed.thresholds
    assert t.shape == (1, 40)
    x = torch.cat([t, torch.nextafter(t, torch.tensor(-torch.inf))])
    signs = layer.input_quantization(x)
    assert bool((signs[0] == 1).all())
    assert bool((signs[1] == -1).all())
    assert from_trained(trained(QLinear, 40, 3)).thresholds is None


class _Hidden(quantizers.Quantizer):
    """A sign with thresholds of the channels that its state does not tell."""

    name, bits = "hidden", 1

    def value(self, x):
        shift = torch.arange(x.shape[1]).view(1, -1, *[1] * (x.ndim - 2))
        return torch.where(x < shift, -1.0, 1.0)

    def slope(self, x):
        return torch.ones_like(x)


def test_thresholds_of_all_channels_are_found_at_once_where_they_are_alike(monkeypatch):
    asked = []
    jumps = _inputs._jumps
    monkeypatch.setattr(_inputs, "_jumps", lambda v, n, c: asked.append(c) or jumps(v, n, c))
    for quantizer, channels in (
        (quantizers.get({"name": "lsq", "bits": 8}), [1]),
        (quantizers.get("rsign"), [20]),
        (_Hidden(), [1, 20]),
    ):
        asked.clear()
        layer = trained(QLinear, 20, 6, inputs=quantizer)
        assert_equal_to_rounding(from_trained(layer)(x := torch.randn(9, 20) * 9), layer, x)
        assert asked == channels


def test_a_channel_of_one_value_of_zeros_and_of_negative_zeros():
    layer = trained(QLinear, 10, 4, weights={"name": "twn", "granularity": "channel"})
    with torch.no_grad():
        layer.weight[0], layer.weight[1], layer.weight[2] = 0.0, -0.0, 0.25
    x = numbers(5, 10)
    assert_equal_to_rounding(from_trained(layer)(x), layer, x)
    layer = trained(QLinear, 10, 4, weights="magnitude_aware_sign")
    with torch.no_grad():
        layer.weight[0], layer.weight[1] = 0.0, -0.0
    assert_equal_to_rounding(from_trained(layer)(x), layer, x)


def test_a_nan_counts_as_the_largest_value():
    layer = trained(QLinear, 10, 4)
    packed = from_trained(layer)
    x = torch.randn(1, 10)
    x[0, 3] = 1.0
    expected = packed(x)
    x[0, 3] = torch.nan
    assert torch.equal(packed(x), expected)


@pytest.mark.parametrize("weights", ["sign", "ttq"])
@pytest.mark.parametrize(
    ("kind", "args", "shape"),
    [
        (QConv1d, (8, 6, 3), (8, 9)),
        (QConv2d, (8, 6, 3), (8, 9, 7)),
        (QConv3d, (8, 6, 3), (8, 5, 4, 3)),
        (QLinear, (8, 6), (8,)),
    ],
)
def test_unbatched_empty_half_and_strided_inputs(kind, args, shape, weights):
    layer = trained(kind, *args, weights=weights)
    packed = from_trained(layer)
    x = torch.randn(4, *shape)
    y = packed(x)
    assert torch.equal(packed(x[1]), y[1])
    assert packed(x[:0]).shape == (0, *y.shape[1:])
    wide = torch.randn(8, *shape)
    wide[::2] = x
    assert torch.equal(packed(wide[::2]), y)
    assert torch.equal(packed(x.transpose(0, 1).contiguous().transpose(0, 1)), y)
    for dtype in (torch.float16, torch.bfloat16):
        small = packed(x.to(dtype))
        assert small.dtype == dtype
        assert torch.equal(small, packed(x.to(dtype).float()).to(dtype))
    if kind is QLinear:
        assert torch.equal(packed(x.view(2, 2, 8)).view(4, 6), y)


@pytest.mark.parametrize(("kind", "args"), [(QConv2d, (8, 6, 3)), (QLinear, (8, 6))])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64, torch.bool])
def test_integers_are_refused_as_the_trained_layer_refuses_them(kind, args, dtype):
    layer = trained(kind, *args)
    x = torch.ones(2, 8, *[5] * (2 * (kind is QConv2d))).to(dtype)
    with pytest.raises(RuntimeError, match=r"type|cast"):
        layer(x)
    with pytest.raises(TypeError, match=rf"{dtype}.*\.float\(\)"):
        from_trained(layer)(x)


@pytest.mark.parametrize("weights", ["sign", "ttq"])
@pytest.mark.parametrize(
    ("dims", "layout"), [(2, torch.channels_last), (3, torch.channels_last_3d)]
)
def test_channels_last_stays_channels_last(dims, layout, weights):
    kind = (QConv2d, QConv3d)[dims - 2]
    packed = from_trained(trained(kind, 8, 6, 3, weights=weights))
    x = torch.randn(2, 8, *[6] * dims)
    y = packed(x.to(memory_format=layout))
    assert torch.equal(y, packed(x))
    assert packed(x).is_contiguous()
    assert y.is_contiguous(memory_format=layout) or weights == "ttq"


PARTS = {
    "all": lambda x: x,
    "pixels": lambda x: x[:, :, ::2, ::2],
    "channels": lambda x: x[:, :8],
    "columns": lambda x: x[..., 1:],
    "one image for all": lambda x: x[:1].expand(3, -1, -1, -1),
    "transposed": lambda x: x.transpose(2, 3),
}


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("padding_mode", ["zeros", "circular"])
def test_the_layout_is_that_of_the_trained_layer(padding_mode, layout, part):
    x = PARTS[part](torch.randn(4, 16, 6, 6).contiguous(memory_format=layout))
    layer = trained(QConv2d, x.shape[1], 6, 3, padding=1, padding_mode=padding_mode)
    with torch.no_grad():
        assert from_trained(layer)(x).stride() == layer(x).stride()


def test_what_comes_as_bits_goes_out_in_the_layout_that_the_layer_says():
    made = from_trained(trained(QConv2d, 8, 70, 3, bias=False))
    packed = PackedConv2d(made.geometry, steps=made.steps, packed_input=True, channels_last=True)
    packed.load_state_dict(made.state_dict())
    assert "channels_last=True" in repr(packed)
    assert "channels_last" not in repr(made)
    x, residual = torch.randn(2, 8, 6, 5), torch.randn(2, 70, 4, 3)
    bits = kernels.pack(x)
    for layer in (packed, copy.deepcopy(packed), pickle.loads(pickle.dumps(packed))):
        y = layer(bits)
        assert torch.equal(y, made(x))
        assert y.is_contiguous(memory_format=torch.channels_last)
        layer.channels_last = False
        assert layer(bits).is_contiguous()
        layer.set_output("float", (kernels.AFFINE, kernels.RESIDUAL), layer.params)
        last = residual.to(memory_format=torch.channels_last)
        assert layer(bits, residual).is_contiguous()
        assert layer(bits, last).is_contiguous(memory_format=torch.channels_last)


def test_a_residual_and_steps_follow():
    layer = trained(QConv2d, 8, 70, 3, padding=1)
    packed = from_trained(layer)
    params = torch.cat([packed.params, torch.rand(1, 70)])
    packed.set_output("float", (kernels.AFFINE, kernels.RESIDUAL, kernels.PRELU), params)
    x, residual = torch.randn(2, 8, 5, 5), torch.randn(2, 70, 5, 5)
    with torch.no_grad():
        expected = F.prelu(layer(x) + residual, params[2])
    torch.testing.assert_close(packed(x, residual), expected)
    assert torch.equal(packed(x[0], residual[0]), packed(x, residual)[0])
    assert packed(x.half(), residual.half()).dtype == torch.float16
    for layout in (torch.contiguous_format, torch.channels_last):
        wider = torch.cat([torch.randn(2, 3, 5, 5), residual], 1).contiguous(memory_format=layout)
        assert torch.equal(packed(x, wider[:, 3:]), packed(x, residual))
    mixed = from_trained(trained(QConv2d, 8, 70, 3, padding=1, weights="ttq"))
    params = torch.cat([mixed.params, torch.rand(1, 70)])
    plain = mixed(x)
    mixed.set_output("float", (kernels.AFFINE, kernels.RESIDUAL, kernels.PRELU), params)
    torch.testing.assert_close(mixed(x, residual), F.prelu(plain + residual, params[2]))


def test_integers_bits_and_both():
    first = trained(QConv2d, 8, 70, 3, padding=1, bias=False)
    second = trained(QConv2d, 70, 5, 3, padding=1)
    a, b = from_trained(first), from_trained(second)
    x = torch.randn(2, 8, 6, 5)
    with torch.no_grad():
        v, y = first(x), second(first(x))
    a.set_output("int", ())
    assert a(x).dtype == torch.int32
    assert torch.equal(a(x).float(), v)
    params = torch.zeros(2, 70, dtype=torch.int32)
    a.set_output("bits", (), params)
    signs = packing.unpack_signs(a(x).movedim(1, -1), 70).movedim(-1, 1)
    assert torch.equal(signs, torch.where(v < 0, -1.0, 1.0))
    b.set_packed_input()
    torch.testing.assert_close(b(a(x)), y)
    a.set_output(
        "both",
        (kernels.AFFINE,),
        torch.stack([*torch.eye(2, 70)[:0], *[torch.ones(70), torch.zeros(70), torch.zeros(70)]]),
    )
    floats, bits = a(x)
    assert torch.equal(floats, v)
    torch.testing.assert_close(b(bits), y)


@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning")
def test_a_layer_without_a_scale_has_no_such_attribute():
    a = from_trained(trained(QConv2d, 8, 70, 3, bias=False))
    b = from_trained(trained(QConv2d, 70, 6, 1))
    assert hasattr(a, "scale")
    assert hasattr(a, "shift")
    a.set_output("bits", (), torch.zeros(2, 70, dtype=torch.int32))
    b.set_packed_input()
    assert not hasattr(a, "scale")
    assert not hasattr(a, "shift")
    with pytest.raises(AttributeError, match=r"PackedConv2d.*scale"):
        _ = a.scale
    model, x = nn.Sequential(a, b), torch.randn(2, 8, 5, 5)
    assert torch.equal(torch.jit.trace(model, x)(x), model(x))


def test_what_a_layer_cannot_give_is_refused():
    mixed = from_trained(trained(QConv2d, 8, 6, 3, weights="ttq"))
    grouped = from_trained(trained(QConv2d, 8, 12, 3, groups=2))
    scaled = from_trained(trained(QLinear, 8, 6, weights={"name": "xnor", "act_scale": True}))
    for layer in (mixed, grouped, scaled):
        assert not layer.plain
        with pytest.raises(ValueError, match="gives floats only"):
            layer.set_output("bits", ())
    with pytest.raises(ValueError, match="nothing follows"):
        scaled.set_output("float", (kernels.AFFINE, kernels.RELU))
    with pytest.raises(ValueError, match="needs the inputs themselves"):
        scaled.set_packed_input()
    reflected = from_trained(trained(QConv2d, 8, 6, 3, padding=1, padding_mode="reflect"))
    with pytest.raises(ValueError, match="pads numbers"):
        reflected.set_packed_input()
    layer = from_trained(trained(QConv2d, 8, 6, 3))
    with pytest.raises(ValueError, match=r"takes params \(2, 6\)"):
        layer.set_output("float", (kernels.AFFINE,), torch.zeros(3, 6))
    with pytest.raises(ValueError, match="out is one of"):
        layer.set_output("double", ())
    with pytest.raises(ValueError, match="with 2 axes after"):
        layer(torch.zeros(8, 8))


class Odd(quantizers.Quantizer):
    """Down, up and down again."""

    name = "odd"
    bits = 1

    def value(self, x):
        return torch.where((x > 0) & (x < 1), 1.0, -1.0).to(x.dtype)

    def slope(self, x):
        return torch.ones_like(x)


class Falling(Odd):
    """From +3 to -3, in steps of 2, as x rises."""

    name = "falling"

    def value(self, x):
        return 3 - 2 * torch.stack([x > t for t in (-1, 0.25, 2)]).to(x.dtype).sum(0)


class Skipping(Odd):
    """-1, 0 and 1, but of an even channel -1 and 1 only."""

    name = "skipping"

    def value(self, x):
        return torch.where(torch.arange(10) % 2 == 0, torch.where(x < 0.3, -1.0, 1.0), x.sign())


class Random(Odd):
    name = "random"

    def value(self, x):
        return torch.rand_like(x).round()


class Uneven(Odd):
    name = "uneven"

    def value(self, x):
        return torch.where(x < 0, -1.0, torch.where(x < 1, 0.1, 1.0)).to(x.dtype)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"inputs": None}, "input is full precision: name"),
        ({"weights": None}, "weight is full precision: name"),
        ({"inputs": Odd()}, r"not monotonic|one value only"),
        ({"inputs": Random()}, "at random"),
        ({"weights": Random()}, "at random"),
        ({"inputs": Uneven()}, "on no uniform grid"),
        ({"inputs": {"name": "lsq", "per_channel": True}}, "one step for all channels"),
        ({"weights": {"name": "apot", "bits": 6, "additive": False}}, "on no uniform grid"),
    ],
)
def test_reasons(options, reason):
    given = {"input_quantization": "sign", "weight_quantization": "sign"}
    for key, value in options.items():
        given[{"inputs": "input_quantization", "weights": "weight_quantization"}[key]] = value
    layer = QLinear(70, 6, **given)
    layer(torch.randn(5, 70) * (torch.arange(70) + 1))
    with pytest.raises(CannotPack, match=reason):
        from_trained(layer.eval())


def test_other_layers_say_why():
    with pytest.raises(CannotPack, match="float64"):
        from_trained(trained(QLinear, 8, 6).double())
    with pytest.raises(CannotPack, match="transposed"):
        from_trained(
            QConvTranspose2d(8, 6, 3, input_quantization="sign", weight_quantization="sign")
        )
    with pytest.raises(CannotPack, match=r"PackedEmbedding.from_trained"):
        from_trained(QEmbedding(8, 6, weight_quantization="sign"))
    layer = trained(QLinear, 8, 6)
    with torch.no_grad():
        layer.weight[0, 0] = torch.nan
    with pytest.raises(CannotPack, match=r"NaN|finite"):
        from_trained(layer)


def test_a_falling_quantizer_packs():
    layer = QLinear(10, 4, input_quantization=Falling(), weight_quantization="sign").eval()
    packed = from_trained(layer)
    assert packed.geometry.planes_x == 2
    x = numbers(6, 10)
    assert_equal_to_rounding(packed(x), layer, x)


def test_a_channel_may_skip_values_of_others():
    layer = QLinear(10, 4, input_quantization=Skipping(), weight_quantization="sign").eval()
    packed = from_trained(layer)
    assert packed.thresholds.shape == (2, 10)
    x = numbers(30, 10)
    assert_equal_to_rounding(packed(x), layer, x)


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_grids_about_zero_need_no_filter_of_ones(bits):
    packed = from_trained(trained(QLinear, 400, 3, weights={"name": "dorefa_weight", "bits": bits}))
    assert (packed.geometry.planes_w, packed.terms) == (bits, 0)


@pytest.mark.parametrize("around", [{}, {"padding_mode": "reflect"}, {"stride": 2}], ids=str)
def test_scales_by_the_inputs_of_every_geometry(around):
    weights = {"name": "xnor", "act_scale": True}
    layer = trained(QConv2d, 8, 6, 3, padding=(2, 1), weights=weights, **around)
    x = torch.randn(2, 8, 6, 7)
    assert_equal_to_rounding(from_trained(layer)(x), layer, x)


def test_a_half_precision_layer_packs():
    layer = trained(QConv2d, 8, 6, 3, inputs="rsign", weights="magnitude_aware_sign").bfloat16()
    packed = from_trained(layer)
    x = torch.randn(2, 8, 5, 5).bfloat16()
    with torch.no_grad():
        wide = copy.deepcopy(layer).float()
        wide.weight_quantization = None
        wide.weight.copy_(layer._quantized_weight().float())
        torch.testing.assert_close(packed(x), wide(x.float()).bfloat16(), rtol=1e-2, atol=1e-2)


# Modules.

KINDS = {
    "sign": lambda: (trained(QConv2d, 70, 6, 3, padding=1), (2, 70, 5, 5)),
    "planes": lambda: (
        trained(QConv2d, 9, 6, 3, padding=1, inputs="pact", weights={"name": "lsq", "bits": 2}),
        (2, 9, 5, 5),
    ),
    "border": lambda: (
        trained(QConv2d, 9, 6, 3, padding=1, inputs="adabin_input", weights="ttq"),
        (2, 9, 5, 5),
    ),
    "scaled": lambda: (
        trained(QConv2d, 9, 6, 3, padding=1, weights={"name": "xnor", "act_scale": True}),
        (2, 9, 5, 5),
    ),
    "reflect": lambda: (
        trained(QConv2d, 9, 6, 3, padding=1, padding_mode="reflect"),
        (2, 9, 5, 5),
    ),
    "linear": lambda: (trained(QLinear, 70, 6, inputs="rsign"), (3, 70)),
}


@pytest.fixture(params=list(KINDS))
def module(request):
    layer, shape = KINDS[request.param]()
    packed = from_trained(layer)
    x = torch.randn(shape)
    return packed, x, packed(x)


def test_copies_and_pickles_compute_the_same(module):
    packed, x, y = module
    for again in (copy.deepcopy(packed), pickle.loads(pickle.dumps(packed))):
        assert again.panel is not None
        assert again.panel is not packed.panel
        assert torch.equal(again(x), y)
    assert len(pickle.dumps(packed)) < 8000 + sum(
        b.numel() * b.element_size() for b in packed.state_dict().values()
    )


def test_a_state_dict_loads_into_a_new_module_and_renews_the_panel(module):
    packed, x, y = module
    new = copy.deepcopy(packed)
    for buffer in new.state_dict().values():
        buffer.zero_()
    new.refresh()
    assert not torch.equal(new(x), y)
    file = io.BytesIO()
    torch.save(packed.state_dict(), file)
    file.seek(0)
    state = torch.load(file, weights_only=True)
    assert "panel" not in state
    new.load_state_dict(state)
    assert torch.equal(new(x), y)


def test_a_weight_that_was_written_to_counts_from_the_next_refresh():
    packed = from_trained(trained(QConv2d, 64, 6, 3, bias=False))
    x = torch.randn(2, 64, 5, 5)
    y = packed(x)
    packed.weight.bitwise_not_()
    assert torch.equal(packed(x), y)
    packed.refresh()
    assert torch.equal(packed(x), -y)


def test_a_module_made_by_its_arguments_takes_the_state_dict():
    for name in ("sign", "border", "reflect"):
        layer, shape = KINDS[name]()
        packed = from_trained(layer)
        thresholds = None if packed.thresholds is None else tuple(packed.thresholds.shape)
        new = PackedConv2d(
            packed.geometry,
            thresholds=thresholds,
            terms=packed.terms,
            ones=packed.ones,
            border=packed.border,
            padding_mode=packed.padding_mode,
            around=packed.around,
        )
        new.load_state_dict(packed.state_dict())
        x = torch.randn(shape)
        assert torch.equal(new(x), packed(x))
        assert repr(new) == repr(packed)


def test_half_leaves_the_buffers_alone(module):
    packed, x, y = module
    before = {name: b.dtype for name, b in packed.named_buffers()}
    assert {name: b.dtype for name, b in packed.half().named_buffers()} == before
    assert {name: b.dtype for name, b in packed.double().named_buffers()} == before
    assert torch.equal(packed(x), y)


def test_compiled_it_computes_the_same(module):
    packed, x, y = module
    torch._dynamo.reset()
    compiled = torch.compile(packed, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(x), y)
    last = x.to(memory_format=torch.channels_last) if x.ndim == 4 else x
    torch.testing.assert_close(compiled(last), y)


def test_exported_it_computes_the_same(module):
    packed, x, y = module
    batch = torch.export.Dim("batch", min=2)
    program = torch.export.export(packed, (x,), dynamic_shapes=({0: batch},))
    names = {str(node.target) for node in program.graph.nodes}
    assert "lowbit.bconv.default" in names
    torch.testing.assert_close(program.module()(x), y)
    torch.testing.assert_close(program.module()(torch.cat([x, x])), torch.cat([y, y]))


def test_the_weight_is_a_bit_for_each_sign():
    packed = from_trained(trained(QConv2d, 128, 64, 3, bias=False))
    assert packed.weight.numel() * 8 == 128 * 64 * 9 // 8


def test_pooling_is_the_maximum_of_signs():
    x = torch.randn(2, 70, 6, 6)
    pooled = PackedMaxPool2d(3, 2, 1)(kernels.pack(x))
    expected = nn.MaxPool2d(3, 2, 1)(torch.where(x < 0, -1.0, 1.0))
    assert torch.equal(pooled, kernels.pack(expected))
    assert torch.equal(PackedMaxPool2d(3, 2, 1)(kernels.pack(x)[1]), pooled[1])
    flipped = PackedMaxPool2d(3, 2, 1, flip=torch.tensor([-1, 1]))(kernels.pack(x))
    assert torch.equal(flipped, pooled ^ torch.tensor([-1, 1]).view(1, 2, 1, 1))
    with pytest.raises(ValueError, match="flip is"):
        PackedMaxPool2d(2, flip=torch.zeros(2))


# Tables.


@pytest.mark.parametrize("weights", ["sign", "magnitude_aware_sign", "adabin_weight"])
def test_a_packed_table_gives_the_very_values(weights):
    layer = QEmbedding(50, 70, padding_idx=3, weight_quantization=weights).eval()
    packed = PackedEmbedding.from_trained(layer)
    indices = torch.randint(0, 50, (4, 5))
    with torch.no_grad():
        assert torch.equal(packed(indices), layer(indices))
        assert torch.equal(copy.deepcopy(packed)(indices[0, 0]), layer(indices[0, 0]))
    assert packed.words.shape == (50, 2)
    assert len(packed.levels) == (1 if weights == "sign" else 50)


@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
@pytest.mark.parametrize("padding_idx", [None, 3])
def test_a_packed_bag_adds_the_very_values(mode, padding_idx):
    layer = QEmbeddingBag(
        50, 70, mode=mode, padding_idx=padding_idx, weight_quantization="magnitude_aware_sign"
    ).eval()
    packed = TABLES[QEmbeddingBag].from_trained(layer)
    indices, offsets = torch.randint(0, 6, (20,)), torch.tensor([0, 4, 4, 11])
    with torch.no_grad():
        assert torch.equal(packed(indices, offsets), layer(indices, offsets))
        assert torch.equal(packed(indices.view(4, 5)), layer(indices.view(4, 5)))
        if mode == "sum":
            weights = torch.randn(20)
            assert torch.equal(packed(indices, offsets, weights), layer(indices, offsets, weights))


@pytest.mark.parametrize("kind", [QEmbedding, QEmbeddingBag])
@pytest.mark.parametrize("weights", ["sign", "magnitude_aware_sign"])
@pytest.mark.parametrize("index", [-1, 50])
def test_a_packed_table_has_the_rows_of_the_trained_one(kind, weights, index):
    layer = kind(50, 70, weight_quantization=weights).eval()
    for table in (layer, TABLES[kind].from_trained(layer)):
        with pytest.raises((IndexError, RuntimeError)):
            table(torch.tensor([[3, index]]))


def test_tables_say_why():
    for options, reason in (
        ({"weight_quantization": "twn"}, "more than two values"),
        ({"weight_quantization": "sign", "max_norm": 1.0}, "max_norm"),
        ({}, "full precision"),
    ):
        with pytest.raises(CannotPack, match=reason):
            PackedEmbedding.from_trained(QEmbedding(50, 70, **options))


def test_each_kind_of_layer_has_its_packed_class():
    assert PACKED[QConv2d] is PackedConv2d
    assert type(from_trained(trained(QLinear, 8, 6))) is PackedLinear
