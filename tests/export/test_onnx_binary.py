"""Layers of few values give in onnxruntime what they give in lowbit, from weights of bits."""

import copy
import random

import pytest
import torch
from torch import nn

import lowbit
from lowbit import export, quantizers
from lowbit.nn import (
    QActivation,
    QConv1d,
    QConv2d,
    QConv3d,
    QConvTranspose2d,
    QEmbedding,
    QEmbeddingBag,
    QLinear,
)
from lowbit.nn.packed import PackedConv2d, PackedEmbedding, PackedEmbeddingBag, from_trained
from tests.convert import test_models
from tests.convert._networks import SIGN, Plain, Residual, integers, shaken
from tests.models._small import CHAOTIC, FAMILIES

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from tests.export import _runtime  # noqa: E402

FORMS = ("float", "int8")
every_form = pytest.mark.parametrize("binary", FORMS)
CONVOLUTIONS = {1: QConv1d, 2: QConv2d, 3: QConv3d}
SCALED = {"input_quantization": "rsign", "weight_quantization": "bireal_weight"}
MODELS = {
    **{name: FAMILIES[name] for name in FAMILIES if name not in CHAOTIC},
    **{name: test_models.MODELS[name] for name in ("mlp_prelu", "lenet_64", "vgg", "quicknet")},
}
# One of each way to hand on bits, numbers and both; the others take minutes.
FEW = ("lenet_64", "vgg", "finn_mlp")


def agrees(model: nn.Module, expected: torch.Tensor, x: torch.Tensor, binary: str) -> None:
    """The scores to rounding, from a file of standard operators; and the same labels."""
    proto = export.onnx(model, x[:1], binary=binary)
    assert [(o.domain, o.version) for o in proto.opset_import] == [("", 21)]
    (y,) = _runtime.run(proto, x)
    torch.testing.assert_close(y, expected, rtol=1e-5, atol=2e-6 * float(expected.abs().max()))
    if expected.ndim > 2:
        return
    best = expected.topk(2).values
    clear = best[:, 0] - best[:, 1] > 1e-5 * best.abs().amax()
    assert torch.equal(y.argmax(1)[clear], expected.argmax(1)[clear])


@every_form
@pytest.mark.parametrize(
    "name", [n if n in FEW else pytest.param(n, marks=pytest.mark.slow) for n in MODELS]
)
def test_every_family_of_models_trained_and_packed(name, binary):
    make, shape = MODELS[name]
    for quantization in (SIGN, SCALED):
        model = shaken(make(**quantization))
        x = integers((3, *shape))
        with torch.no_grad():
            expected = model(x)
        agrees(model, expected, x, binary)
        for fast in (False, True):
            packed, _ = lowbit.convert(model, keep_slower=True, fast_floats=fast)
            agrees(packed, expected, x, binary)


def drawn(seed: int) -> tuple[nn.Module, torch.Tensor]:
    """A layer whose sums are whole, and an input with zeros of both signs."""
    draw = random.Random(seed)
    dims = draw.choice([0, 1, 2, 2, 3])
    weight = draw.choice(["sign", "sign", {"name": "twn", "scale": False}])
    given = draw.choice(["sign", "sign", "ste_heaviside", {"name": "sign", "sign_zero": "ternary"}])
    options = {"input_quantization": given, "weight_quantization": weight, "bias": False}
    if dims == 0:
        layer = QLinear(draw.randint(1, 70), draw.randint(1, 20), **options)
        return layer, integers((5, layer.in_features), seed)
    groups = draw.choice([1, 1, 2, 3])
    layer = CONVOLUTIONS[dims](
        groups * draw.randint(1, 24),
        groups * draw.randint(1, 9),
        tuple(draw.randint(1, 3) for _ in range(dims)),
        stride=tuple(draw.randint(1, 2) for _ in range(dims)),
        padding=draw.choice([0, 1, tuple(range(dims))]),
        dilation=tuple(draw.randint(1, 2) for _ in range(dims)),
        groups=groups,
        pad_value=draw.choice([-1, 0, 1]),
        **options,
    )
    size = [draw.randint(6, 9) for _ in range(dims)]
    return layer, integers((2, layer.in_channels, *size), seed)


@every_form
@pytest.mark.parametrize("seed", range(30))
def test_drawn_layers_have_the_same_integers(seed, binary):
    torch.manual_seed(seed)
    layer, x = drawn(seed)
    layer.eval()
    with torch.no_grad():
        expected = layer(x)
    assert torch.equal(expected, expected.round())
    for model in (layer, from_trained(layer)):
        proto = export.onnx(model, x[:1], binary=binary)
        for rows in (x, x[:1]):
            (y,) = _runtime.run(proto, rows)
            assert torch.equal(y, expected[: len(rows)])


@every_form
def test_integers_and_bits_with_any_thresholds_and_flips(binary):
    """What packed layers hand on, through a pooling that turns some round, to the next layer."""
    torch.manual_seed(0)
    first = PackedConv2d.from_trained(QConv2d(40, 64, 3, padding=1, bias=False, **SIGN))
    second = PackedConv2d.from_trained(QConv2d(64, 7, 3, padding=1, pad_value=1, **SIGN))
    thresholds = torch.stack([torch.randint(-40, 40, (64,)), torch.randint(0, 2, (64,))])
    first.set_output("bits", (), thresholds.int())
    second.set_packed_input()
    second.set_output("int", ())
    pool = lowbit.nn.packed.PackedMaxPool2d(3, 2, 1, flip=torch.tensor([0x123456789ABCDEF]))
    x = integers((3, 40, 9, 9))
    for model in (nn.Sequential(first, second), nn.Sequential(first, pool, second)):
        (y,) = _runtime.run(export.onnx(model, x[:1], binary=binary), x)
        assert y.dtype == torch.int32
        assert torch.equal(y, model(x))


@every_form
def test_sums_of_zero_keep_their_sign_behind_a_scale(binary):
    """Runtimes that moved the scale into the weights would make -1e-8 of a sum of 0."""
    torch.manual_seed(0)
    model = nn.Sequential(
        QConv2d(32, 64, 3, input_quantization="sign", weight_quantization="xnor", bias=False),
        QActivation("sign"),
    ).eval()
    x = integers((4, 32, 12, 12))
    with torch.no_grad():
        packed = lowbit.convert(model, fold=False, keep_slower=True)[0]
        expected = packed(x)
        assert bool((packed[0](x) == 0).any())
    (y,) = _runtime.run(export.onnx(packed, x[:1], binary=binary), x)
    assert torch.equal(y, expected)


BITS = {
    "dorefa": ("dorefa_input", "dorefa_weight"),
    "lsq": ("lsq", "lsq"),
    "lsq_plus": ("lsq_plus", "lsq_plus"),
    "pact": ("pact", "int_k"),
    "int_k": ("int_k", "int_k"),
    "sign": ("dorefa_input", "sign"),
}


@every_form
@pytest.mark.parametrize("bits", [2, 4])
@pytest.mark.parametrize("name", BITS)
def test_layers_of_several_bits(name, bits, binary):
    torch.manual_seed(0)
    given, weight = ({"name": n, "bits": bits} if n != "sign" else n for n in BITS[name])
    layer = QConv2d(
        16, 8, 3, padding=1, input_quantization=given, weight_quantization=weight, groups=2
    )
    x = integers((3, 16, 7, 7)).abs()
    model = nn.Sequential(layer, nn.BatchNorm2d(8)).train()
    model(x)
    model.eval()
    with torch.no_grad():
        expected = model(x)
    packed, _ = lowbit.convert(model, keep_slower=True)
    for each in (model, packed):
        (y,) = _runtime.run(export.onnx(each, x[:1], binary=binary), x)
        torch.testing.assert_close(y, expected, rtol=1e-4, atol=1e-5)


OF_WEIGHTS = ("rbnn_rotate", "siman")


@pytest.mark.parametrize("name", [n for n in quantizers.names() if quantizers.get(n).deterministic])
def test_every_quantizer_of_weights_and_of_inputs(name):
    """Those that look at the whole batch, and those that do not pack, by their own arithmetic."""
    torch.manual_seed(0)
    models = [
        QLinear(40, 24, weight_quantization=name),
        QLinear(40, 24, weight_quantization=name, input_quantization="sign"),
    ]
    if name not in OF_WEIGHTS:
        models.append(QLinear(40, 24, input_quantization=name))
    x = torch.randn(6, 40)
    for model in models:
        model.train()(x)
        model.eval()
        with torch.no_grad():
            expected = model(x)
        if (name, model.weight_quantization) in (("apot", None), ("lq", None)):
            with pytest.raises(NotImplementedError, match=r"in input_quantization .* no operator"):
                export.onnx(model, x)
            continue
        (y,) = _runtime.run(export.onnx(model, x, dynamic_batch=False), x)
        torch.testing.assert_close(y, expected, rtol=1e-4, atol=1e-4)


def test_blocks_with_residuals_and_signs_of_both():
    for block in (Residual(), Residual(nn.PReLU(32)), Plain([nn.BatchNorm2d(32), nn.Hardtanh()])):
        model = shaken(block)
        x = integers((3, 32, 9, 9))
        with torch.no_grad():
            expected = model(x)
        for form in FORMS:
            agrees(model, expected, x, form)
            agrees(lowbit.convert(model, keep_slower=True)[0], expected, x, form)


def test_what_is_contiguous_already_is_not_written_over():
    """As converted models call it, on images that others are views of."""

    class Again(nn.Module):
        def forward(self, x):
            y = torch.relu(x)
            rows = y.flatten(1) * 2
            return y.contiguous().flatten(1) + rows

    x = integers((2, 3, 2, 2))
    (y,) = _runtime.run(export.onnx(Again(), x[:1]), x)
    assert torch.equal(y, Again()(x))


def test_transposed_convolutions_and_tables():
    torch.manual_seed(0)
    layer = QConvTranspose2d(6, 4, 3, stride=2, **SIGN).eval()
    x = integers((2, 6, 5, 5))
    (y,) = _runtime.run(export.onnx(layer, x[:1]), x)
    assert torch.allclose(y, layer(x), atol=1e-5)
    indices = torch.tensor([[1, 10, 3], [0, 0, 7]])
    table = QEmbedding(11, 70, weight_quantization="sign").eval()
    for model in (table, PackedEmbedding.from_trained(table)):
        (y,) = _runtime.run(export.onnx(model, indices[:1]), indices)
        assert torch.equal(y, table(indices))
    for mode in ("sum", "mean", "max"):
        bag = QEmbeddingBag(11, 70, mode=mode, weight_quantization="bireal_weight").eval()
        for model in (bag, PackedEmbeddingBag.from_trained(bag)):
            (y,) = _runtime.run(export.onnx(model, indices[:1]), indices)
            torch.testing.assert_close(y, bag(indices))


@every_form
def test_the_file_has_the_weights_in_bits(binary):
    torch.manual_seed(0)
    for weight, bits in (("sign", 1), ("twn", 2), ({"name": "int_k", "bits": 4}, 4)):
        layer = QConv2d(128, 256, 3, input_quantization="sign", weight_quantization=weight).eval()
        size = len(export.onnx(layer, torch.randn(1, 128, 3, 3), binary=binary).SerializeToString())
        numbers = layer.weight.numel()
        assert 0 < size - numbers * bits / 8 < 16_000
    only_weights = QLinear(1024, 512, weight_quantization="bireal_weight").eval()
    size = len(export.onnx(only_weights, torch.randn(1, 1024)).SerializeToString())
    assert 0 < size - only_weights.weight.numel() / 8 < 16_000


def test_int8_runs_in_integer_kernels_from_bits_to_bits(tmp_path):
    model, x = shaken(test_models.MODELS["vgg"][0](**SIGN)), integers((1, 3, 32, 32))
    packed, report = lowbit.convert(model, keep_slower=True)
    found = _runtime.kernels(export.onnx(packed, x, binary="int8"), tmp_path)
    bits = sum(row.output == "bits" for row in report)
    assert sum(name.endswith("QLinearConv") for name in found) == bits == 4


def test_the_model_is_left_as_it_was():
    model = shaken(Plain([]))
    before = copy.deepcopy(model.state_dict())
    layer_dict = dict(model.first.__dict__)
    export.onnx(model, integers((1, 32, 5, 5)))
    assert model.first.__dict__ == layer_dict
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_what_cannot_be_written_says_why():
    layer = PackedConv2d.from_trained(QConv2d(64, 8, 1, **SIGN))
    layer.set_packed_input()
    with pytest.raises(NotImplementedError, match="takes packed words"):
        export.onnx(layer, torch.zeros(1, 1, 3, 3, dtype=torch.int64))
    with pytest.raises(ValueError, match="binary is one of float, int8; got 'bits'"):
        export.onnx(nn.ReLU(), torch.zeros(1, 3), binary="bits")
