"""Against torch.ao.nn.quantized itself, and out of its checkpoints, while torch has it."""

import copy
import io

import pytest
import torch
from torch import nn

from lowbit.nn import quantized as nnq
from lowbit.nn.quantized import functional as qF
from lowbit.qtensor import QTensor, from_torch_quantized, to_torch_quantized
from tests.nn.quantized._models import activation, normal, weighted

aoq = pytest.importorskip("torch.ao.nn.quantized")
ao = pytest.importorskip("torch.ao.quantization")
pytestmark = [
    pytest.mark.filterwarnings("ignore"),
    pytest.mark.skipif(not hasattr(torch, "quint8"), reason="torch has no quantized tensors"),
]


@pytest.fixture(autouse=True)
def _x86_engine():
    if "x86" not in torch.backends.quantized.supported_engines:
        pytest.skip("torch has no x86 engine here")
    before = torch.backends.quantized.engine
    torch.backends.quantized.engine = "x86"
    yield
    torch.backends.quantized.engine = before


def assert_same(found: QTensor, legacy: torch.Tensor, apart: int = 0) -> None:
    """The same integers, but for ``apart`` of them, which differ by one: ties and sums in float."""
    expected = from_torch_quantized(legacy)
    assert found.dtype == expected.dtype
    assert found.q_zero_point() == expected.q_zero_point()
    assert found.q_scale() == pytest.approx(expected.q_scale(), rel=1e-7)
    off = (found.values.long() - expected.values.long()).abs()
    assert off.max() <= 1
    assert (off != 0).sum() <= apart


def as_legacy(module: nn.Module, legacy: nn.Module) -> nn.Module:
    """Our weight, bias and output scale in a module of torch."""
    legacy.set_weight_bias(to_torch_quantized(module.weight()), module.bias())
    legacy.scale, legacy.zero_point = module.scale, module.zero_point
    return legacy


LAYERS = {
    "linear": ("Linear", (17, 9), {}, (5, 17)),
    "no_bias": ("Linear", (17, 9, False), {}, (2, 3, 17)),
    "conv1d": ("Conv1d", (6, 8, 3), {"stride": 2, "padding": 1}, (2, 6, 15)),
    "conv2d": ("Conv2d", (6, 8, (3, 5)), {"padding": (1, 2), "dilation": 2}, (2, 6, 12, 13)),
    "groups": ("Conv2d", (6, 8, 3), {"groups": 2, "bias": False}, (2, 6, 9, 9)),
    "depthwise": ("Conv2d", (8, 8, 3), {"groups": 8, "stride": 2}, (2, 8, 9, 9)),
    "reflect": ("Conv2d", (6, 8, 3), {"padding": (1, 2), "padding_mode": "reflect"}, (2, 6, 9, 9)),
    "conv3d": ("Conv3d", (4, 6, 2), {"padding": 1}, (2, 4, 5, 5, 5)),
}


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("axis", [None, 0])
def test_layers_return_what_torch_returns(name, axis):
    kind, arguments, keywords, shape = LAYERS[name]
    module = weighted(getattr(nnq, kind)(*arguments, **keywords), axis)
    legacy = as_legacy(module, getattr(aoq, kind)(*arguments, **keywords))
    x = activation(*shape)
    assert_same(module(x), legacy(to_torch_quantized(x)))


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_transposed_convolutions_return_what_torch_returns(dims):
    kind = f"ConvTranspose{dims}d"
    keywords = {"stride": 2, "padding": 1, "output_padding": 1}
    module = weighted(getattr(nnq, kind)(6, 8, 3, **keywords), None)
    legacy = as_legacy(module, getattr(aoq, kind)(6, 8, 3, **keywords))
    x = activation(2, 6, *[5] * dims)
    assert_same(module(x), legacy(to_torch_quantized(x)))


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_layers_with_relu_return_what_torch_returns(dims):
    import torch.ao.nn.intrinsic.quantized as fused

    module = weighted(getattr(nnq, f"ConvReLU{dims}d")(6, 8, 3))
    legacy = as_legacy(module, getattr(fused, f"ConvReLU{dims}d")(6, 8, 3))
    x = activation(2, 6, *[5] * dims)
    assert_same(module(x), legacy(to_torch_quantized(x)))
    module = weighted(nnq.LinearReLU(6, 8))
    legacy = as_legacy(module, fused.LinearReLU(6, 8))
    x = activation(7, 6)
    assert_same(module(x), legacy(to_torch_quantized(x)))


FUNCTIONS = {
    "max_pool1d": ((3,), {"stride": 2, "padding": 1}, (2, 4, 9)),
    "avg_pool3d": ((2,), {}, (2, 3, 4, 4, 4)),
    "adaptive_avg_pool3d": ((2,), {}, (2, 3, 4, 4, 4)),
    "celu": ((0.02, 60), {"alpha": 1.3}, (7, 9)),
    "elu": ((0.02, 60), {"alpha": 1.3}, (7, 9)),
    "leaky_relu": ((0.2,), {}, (7, 9)),
    "leaky_relu_scaled": ((0.2,), {"scale": 0.02, "zero_point": 30}, (7, 9)),
    "hardtanh": ((-0.7, 1.1), {}, (7, 9)),
    "clamp": ((-0.7, 1.1), {}, (7, 9)),
    "hardsigmoid": ((), {}, (7, 9)),
    "threshold": ((0.3, -0.5), {}, (7, 9)),
    "hardswish": ((0.02, 60), {}, (7, 9)),
}


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("dtype", ["uint8", "int8"])
def test_functions_return_what_torch_returns(name, dtype):
    arguments, keywords, shape = FUNCTIONS[name]
    x, function = activation(*shape, dtype=dtype), name.removesuffix("_scaled")
    # With an even zero point, torch's order of adding it and rounding does not matter.
    x.zero_point += 1
    legacy = getattr(aoq.functional, function)(to_torch_quantized(x), *arguments, **keywords)
    # Torch dequantizes by a fused multiply-add in its vector code, which moves ties.
    apart = 2 if "elu" in name or "hards" in name else 0
    assert_same(getattr(qF, function)(x, *arguments, **keywords), legacy, apart)


@pytest.mark.parametrize("groups", [1, 2])
def test_grouped_transposed_convolutions_are_those_of_their_real_numbers(groups):
    # Torch has no groups with scales of channels here.
    module = weighted(nnq.ConvTranspose2d(6, 8, 3, 2, 1, 1, groups=groups, dilation=2), 1)
    x = activation(2, 6, 5, 5)
    exact = nn.functional.conv_transpose2d(
        x.dequantize().double(),
        module.weight().dequantize().double(),
        module.bias().double(),
        *(2, 1, 1, groups, 2),
    )
    exact = exact.clamp(-10, 15.5)  # what the output's integers reach
    assert (module(x).dequantize() - exact).abs().max() < 0.5001 * module.scale


@pytest.mark.parametrize("shape", [(7,), (3, 5), (2, 3, 5), (2, 3, 2, 5)])
def test_softmax_without_a_dim_takes_that_of_torch(shape):
    x = activation(*shape)
    legacy = aoq.Softmax(None, 0.004, 0)(to_torch_quantized(x))
    assert_same(nnq.Softmax(None, 0.004, 0)(x), legacy)


@pytest.mark.parametrize("name", ["LeakyReLU", "Sigmoid", "Softmax", "PReLU"])
def test_activations_return_what_torch_returns(name):
    arguments = (1, 0.004, 0) if name == "Softmax" else (0.01, 20)
    module, legacy = getattr(nnq, name)(*arguments), getattr(aoq, name)(*arguments)
    if name == "PReLU":
        legacy.set_weight(to_torch_quantized(module.weight))
    x = activation(6, 11)
    assert_same(module(x), legacy(to_torch_quantized(x)))


def test_max_pool_module_returns_what_torch_returns():
    arguments, x = (3, 2, 1, 2, False, True), activation(2, 4, 11, 12)
    legacy = nn.MaxPool2d(*arguments)(to_torch_quantized(x))
    assert_same(nnq.MaxPool2d(*arguments)(x), legacy)
    assert_same(nnq.MaxPool2d.from_float(nn.MaxPool2d(*arguments))(x), legacy)


@pytest.mark.parametrize("name", ["add", "add_relu", "mul", "cat"])
@pytest.mark.parametrize("dtype", ["uint8", "int8"])
def test_qfunctional_returns_what_torch_returns(name, dtype):
    module, legacy = nnq.QFunctional(), aoq.QFunctional()
    for functional in (module, legacy):
        functional.scale, functional.zero_point = 0.05, 40
    x, y = activation(5, 8, dtype=dtype), activation(5, 8, dtype=dtype, seed=3)
    if name == "cat":
        found, expected = module.cat([x, y], 1), [to_torch_quantized(q) for q in (x, y)]
        assert_same(found, legacy.cat(expected, 1))
    else:
        expected = getattr(legacy, name)(to_torch_quantized(x), to_torch_quantized(y))
        assert_same(getattr(module, name)(x, y), expected)


class Float(nn.Module):
    """A model for torch.ao's eager flow."""

    def __init__(self) -> None:
        super().__init__()
        self.quant = ao.QuantStub()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.relu = nn.ReLU()
        self.norm = nn.BatchNorm2d(8)
        self.add = aoq.FloatFunctional()
        self.swish = nn.Hardswish()
        self.fc = nn.Linear(8, 5)
        self.dequant = ao.DeQuantStub()

    def forward(self, x):
        y = self.relu(self.conv(self.quant(x)))
        y = self.swish(self.add.add(self.norm(y), y))
        return self.dequant(self.fc(torch.nn.functional.adaptive_avg_pool2d(y, 1).flatten(1)))


def calibrated() -> nn.Module:
    torch.manual_seed(0)
    model = Float().eval()
    model.qconfig = ao.get_default_qconfig("x86")
    model = ao.prepare(ao.fuse_modules(model, [["conv", "relu"]]))
    model(normal(4, 3, 8, 8))
    return model


class Ours(nn.Module):
    """The same model of our modules, empty."""

    def __init__(self) -> None:
        super().__init__()
        self.quant = nnq.Quantize(1.0, 0, "quint8")
        self.conv = nnq.ConvReLU2d(3, 8, 3, padding=1)
        self.norm = nnq.BatchNorm2d(8)
        self.add = nnq.QFunctional()
        self.swish = nnq.Hardswish(1.0, 0)
        self.fc = nnq.Linear(8, 5)
        self.dequant = nnq.DeQuantize()

    def forward(self, x):
        y = self.conv(self.quant(x))
        y = self.swish(self.add.add(self.norm(y), y))
        return self.dequant(self.fc(qF.adaptive_avg_pool2d(y, 1).flatten(1)))


def one_step(module: nn.Module) -> float:
    return 1.01 * module.fc.scale


def test_from_float_takes_modules_that_torch_observed():
    model, x = calibrated(), normal(4, 3, 8, 8)
    ours = Ours().eval()
    ours.quant = nnq.Quantize.from_float(model.quant)
    ours.conv = nnq.ConvReLU2d.from_float(model.conv)
    ours.norm = nnq.BatchNorm2d.from_float(model.norm)
    ours.add = nnq.QFunctional.from_float(model.add)
    ours.swish = nnq.Hardswish.from_float(model.swish)
    ours.fc = nnq.Linear.from_float(model.fc)
    legacy = ao.convert(model)
    assert ours.conv.weight().equal(from_torch_quantized(legacy.conv.weight()))
    assert ours.fc.weight().equal(from_torch_quantized(legacy.fc.weight()))
    assert (ours(x) - legacy(x)).abs().max() <= one_step(ours)


@pytest.mark.parametrize("converter", [False, True])
def test_a_checkpoint_of_torch_loads(converter):
    legacy, x = ao.convert(calibrated()), normal(4, 3, 8, 8)
    state = legacy.state_dict()
    if converter:
        state = nnq.from_legacy_state_dict(state)
        assert not any(getattr(value, "is_quantized", False) for value in state.values())
        file = io.BytesIO()
        torch.save(state, file)
        file.seek(0)
        state = torch.load(file, weights_only=True)
    ours = Ours().eval()
    ours.load_state_dict(state)
    assert ours.fc.weight().equal(from_torch_quantized(legacy.fc.weight()))
    assert (ours.fc.scale, ours.add.zero_point) == (
        pytest.approx(legacy.fc.scale, rel=1e-7),
        legacy.add.zero_point,
    )
    assert (ours(x) - legacy(x)).abs().max() <= one_step(ours)


def test_older_checkpoints_of_torch_load():
    ours = weighted(nnq.Linear(3, 4))
    weight, bias = to_torch_quantized(ours.weight()), ours.bias()
    output = {"scale": torch.tensor(0.5), "zero_point": torch.tensor(3)}
    for state in (
        {"weight": weight, "bias": bias},
        {"_packed_params.weight": weight, "_packed_params.bias": bias},
        {"_packed_params._packed_params": (weight, bias), "_packed_params.dtype": torch.qint8},
    ):
        found = nnq.Linear(3, 4)
        found.load_state_dict(state | output)
        assert found.weight().equal(ours.weight())
        assert torch.equal(found.bias(), bias)
        assert (found.scale, found.zero_point) == (0.5, 3)


def test_layers_without_a_bias_load():
    for legacy, ours in ((aoq.Conv2d(3, 4, 2, bias=False), nnq.Conv2d(3, 4, 2, bias=False)),):
        ours.load_state_dict(legacy.state_dict())
        ours.load_state_dict(nnq.from_legacy_state_dict(legacy.state_dict()))
    legacy = aoq.Linear(3, 4, bias_=False)
    ours = nnq.Linear(3, 4)
    ours.load_state_dict(legacy.state_dict())
    assert ours.bias() is None


@pytest.mark.parametrize("dtype", ["quint8", "quint4x2"])
@pytest.mark.parametrize("kind", ["Embedding", "EmbeddingBag"])
def test_embeddings_of_torch_load(kind, dtype):
    layer = getattr(nn, kind)(6, 8)
    observer = ao.PerChannelMinMaxObserver(
        dtype=getattr(torch, dtype), qscheme=torch.per_channel_affine_float_qparams, ch_axis=0
    )
    observer(layer.weight)
    q = torch.quantize_per_channel(layer.weight, *observer.calculate_qparams(), 0, observer.dtype)
    legacy = getattr(aoq, kind)(6, 8, dtype=observer.dtype)
    legacy.set_weight(q.detach())
    for state in (legacy.state_dict(), nnq.from_legacy_state_dict(legacy.state_dict())):
        ours = getattr(nnq, kind)(6, 8, dtype=dtype)
        ours.load_state_dict(state)
        indices = torch.tensor([0, 5, 2, 2])
        arguments = (indices, torch.tensor([0, 1])) if kind == "EmbeddingBag" else (indices,)
        torch.testing.assert_close(ours(*arguments), legacy(*arguments), rtol=1e-5, atol=1e-5)


def test_what_is_no_tensor_is_refused():
    with pytest.raises(TypeError, match=r"fc\.extra is a dict, which is not a plain tensor"):
        nnq.from_legacy_state_dict({"fc.extra": {}})


def trained(layer: nn.Module, qat: type) -> nn.Module:
    layer.qconfig = ao.get_default_qat_qconfig("x86")
    module = qat.from_float(layer)
    module.activation_post_process = module.qconfig.activation()
    return module


def test_from_float_takes_modules_trained_by_torch():
    import torch.ao.nn.intrinsic as fused
    import torch.ao.nn.intrinsic.qat as fused_qat
    import torch.ao.nn.qat as qat

    torch.manual_seed(0)
    for name, float_module, qat_module, x in (
        ("Linear", nn.Linear(4, 6), qat.Linear, normal(9, 4)),
        ("Conv2d", nn.Conv2d(4, 6, 3), qat.Conv2d, normal(2, 4, 7, 7)),
        (
            "Conv2d",
            fused.ConvBn2d(nn.Conv2d(4, 6, 3), nn.BatchNorm2d(6)),
            fused_qat.ConvBn2d,
            normal(2, 4, 7, 7),
        ),
    ):
        module = trained(float_module.train(), qat_module)
        # Torch looks at the weight once more to convert it; so, it sees nothing new.
        module.weight_fake_quant.activation_post_process.averaging_constant = 1.0
        for _ in range(3):
            module.activation_post_process(module(x))
        module.eval()(x)
        expected = getattr(aoq, name).from_float(copy.deepcopy(module))
        found = getattr(nnq, name).from_float(module)
        weight = from_torch_quantized(expected.weight())
        # Folding a batch norm once and twice rounds its float32 in two ways.
        torch.testing.assert_close(found.weight().scale, weight.scale, rtol=1e-6, atol=0)
        off = (found.weight().values.short() - weight.values.short()).abs()
        assert off.max() <= 1
        assert off.sum() <= (2 if hasattr(module, "bn") else 0)
        torch.testing.assert_close(found.bias(), expected.bias())
        assert (found.scale, found.zero_point) == (expected.scale, expected.zero_point)
