"""Models of every build: what a conversion follows, what it leaves, and what it gives."""

import copy
import io
import pickle

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize

import lowbit
from lowbit.convert import _worth
from lowbit.convert._layout import AsTrained
from lowbit.models import MLP, LeNet, ResNet18
from lowbit.nn import QConv2d, QConvTranspose2d, QEmbedding, QLinear
from lowbit.nn.packed import PackedConv2d, PackedLayer, PackedLinear
from tests.convert._networks import SIGN, Plain, Residual, integers, shaken

SHAPE = (3, 32, 9, 7)


def convert(model: nn.Module, **options):
    return lowbit.convert(model, keep_slower=True, **options)


def equal(a: nn.Module, b: nn.Module, *inputs) -> bool:
    with torch.no_grad():
        return torch.equal(a(*inputs), b(*inputs))


class Branching(nn.Module):
    """Control flow that follows the data."""

    def __init__(self):
        super().__init__()
        self.net = Plain([nn.BatchNorm2d(32)])

    def forward(self, x):
        return self.net(x) if x.sum() > 0 else self.net(-x)


def test_a_model_that_cannot_be_traced_is_packed_without_folding():
    model = shaken(Branching())
    converted, report = convert(model)
    assert type(converted) is Branching
    assert [row.packed for row in report] == [True, True]
    assert "torch.fx cannot follow forward" in report.folding
    for sign in (1, -1):
        x = sign * integers(SHAPE).abs()
        with torch.no_grad():
            torch.testing.assert_close(converted(x), model(x), rtol=1e-6, atol=1e-5)


class Optional(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = Plain([nn.BatchNorm2d(32)])

    def forward(self, x, mask=None):
        y = self.net(x)
        return y if mask is None else y * mask


def test_arguments_with_defaults_need_an_example():
    model, x = shaken(Optional()), integers(SHAPE)
    converted, report = convert(model)
    assert "mask; give example=" in report.folding
    assert type(converted) is Optional
    assert equal(converted, model, x, torch.tensor(2.0))
    folded, report = convert(model, example=x)
    assert report[0].output == "bits"
    assert equal(folded, model, x)
    folded, report = convert(model, example=(x, torch.tensor(2.0)))
    assert report[0].output == "bits"
    assert equal(folded, model, x, torch.tensor(3.0))


class Random(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = Plain([nn.BatchNorm2d(32)])

    def forward(self, x):
        return self.net(x) + torch.rand(1)


class InPlace(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = Plain([nn.BatchNorm2d(32)])
        self.conv = QConv2d(32, 32, 1, bias=False, **SIGN)

    def forward(self, x):
        y = self.net(x)
        z = self.conv(y)
        return z + y.mul_(2) + y


@pytest.mark.parametrize(
    ("make", "why"),
    [(Random, "makes tensors of its own"), (InPlace, "changes in place a value that others read")],
)
def test_what_a_trace_would_falsify_is_not_folded(make, why):
    model = shaken(make())
    converted, report = convert(model)
    assert why in report.folding
    assert type(converted) is make
    outputs = []
    for net in (model, converted):
        torch.manual_seed(0)
        with torch.no_grad():
            outputs.append(net(integers(SHAPE)))
    torch.testing.assert_close(*outputs, rtol=1e-6, atol=1e-5)


class Shared(nn.Module):
    """One layer for two values, one of them under a second name, one pool for both."""

    def __init__(self):
        super().__init__()
        self.conv = QConv2d(32, 32, 3, padding=1, bias=False, **SIGN)
        self.again = self.conv
        self.norm = nn.BatchNorm2d(32)
        self.pool = nn.MaxPool2d(2)
        self.before = QConv2d(32, 32, 3, padding=1, bias=False, **SIGN)

    def forward(self, x):
        y = self.norm(self.pool(self.before(x)))
        return self.pool(self.again(self.norm(self.conv(y))))


def test_a_layer_that_is_called_twice_stays_shared():
    model = shaken(Shared())
    converted, report = convert(model)
    assert len(report) == 2
    assert {row.name: row.output for row in report} == {"conv": "float", "before": "float"}
    assert equal(converted, model, integers(SHAPE))
    unfolded, _ = convert(model, fold=False)
    assert unfolded.conv is unfolded.again


class TwoPools(nn.Module):
    def __init__(self):
        super().__init__()
        self.pool = nn.MaxPool2d(2)
        self.convs = nn.ModuleList(
            QConv2d(32, 32, 3, padding=1, bias=False, **SIGN) for _ in range(3)
        )
        self.norms = nn.ModuleList(nn.BatchNorm2d(32) for _ in range(2))

    def forward(self, x):
        for conv, norm in zip(self.convs[:2], self.norms, strict=True):
            x = norm(self.pool(conv(x)))
        return self.pool(self.convs[2](x))


def test_one_pool_may_serve_bits_and_numbers():
    model = shaken(TwoPools())
    converted, report = convert(model)
    assert [row.output for row in report] == ["bits", "bits", "float"]
    assert equal(converted, model, integers((2, 32, 17, 16)))


def test_hooks_and_parametrizations_keep_a_layer():
    model = shaken(Plain([nn.BatchNorm2d(32)]))
    model.first.register_forward_hook(lambda module, inputs, output: 2 * output)
    parametrize.register_parametrization(model.second, "weight", nn.Identity())
    converted, report = convert(model)
    assert [row.packed for row in report] == [False, False]
    assert all("hooks or parametrizations" in row.why for row in report)
    assert equal(converted, model, integers(SHAPE))


def test_weight_norm_keeps_a_layer():
    model = Plain([nn.BatchNorm2d(32)])
    parametrizations.weight_norm(model.first)
    _, report = convert(shaken(model))
    assert [row.packed for row in report] == [False, True]


class Doubled(QConv2d):
    def forward(self, x):
        return 2 * super().forward(x)


def test_a_subclass_is_not_taken_for_its_parent():
    model = Plain([nn.BatchNorm2d(32)])
    model.second = Doubled(32, 32, 3, **SIGN)
    converted, report = convert(shaken(model))
    assert "class of its own" in report[1].why
    assert equal(converted, model, integers(SHAPE))


def test_layers_without_a_packed_form_say_why():
    model = nn.Sequential(
        QConvTranspose2d(32, 32, 3, **SIGN),
        QConv2d(32, 32, 3, weight_quantization="sign"),
        QConv2d(32, 32, 3, input_quantization="sign"),
        QConv2d(32, 32, 3),
    )
    converted, report = convert(shaken(model))
    assert [row.packed for row in report] == [False] * 3
    assert [row.name for row in report] == ["0", "1", "2"]
    assert all(row.why for row in report)
    assert type(converted) is nn.Sequential


@pytest.mark.parametrize(
    ("layer", "why"),
    [
        (QConv2d(32, 32, 3, groups=32, **SIGN), "1 input channels a group"),
        (QConv2d(8, 32, 3, **SIGN), "8 input channels"),
        (QConv2d(32, 32, 1, **SIGN), "32 products an output"),
        (QLinear(48, 8, **SIGN), "48 products"),
        (
            QConv2d(
                32, 32, 3, **{**SIGN, "input_quantization": {"name": "dorefa_input", "bits": 4}}
            ),
            "",
        ),
        (
            QConv2d(
                *(32, 32, 3),
                input_quantization={"name": "dorefa_input", "bits": 4},
                weight_quantization={"name": "dorefa_weight", "bits": 4},
            ),
            "16 binary products for one",
        ),
    ],
)
def test_a_layer_that_would_be_slower_stays(monkeypatch, layer, why):
    monkeypatch.setattr(_worth, "least", lambda: (_worth.POPCOUNT, "avx512_vpopcntdq"))
    packed, report = lowbit.convert(layer)
    assert report[0].packed == (not why)
    assert why in report[0].why
    assert type(packed) is type(layer) or not why
    assert isinstance(lowbit.convert(layer, keep_slower=True).model, PackedLayer)


def test_an_embedding_is_packed_on_request():
    model = nn.Sequential(QEmbedding(50, 128, weight_quantization="sign"), QLinear(128, 8, **SIGN))
    _, report = lowbit.convert(model)
    assert "unpacked when looked up" in report[0].why
    converted, report = convert(model)
    assert [row.packed for row in report] == [True, True]
    assert report[0].bytes_after < report[0].bytes_before / 20
    indices = torch.arange(50).view(5, 10)
    with torch.no_grad():
        torch.testing.assert_close(converted(indices), model.eval()(indices))


def test_a_single_layer_becomes_a_packed_layer():
    layer = QLinear(128, 8, **SIGN).eval()
    packed, report = convert(layer)
    assert isinstance(packed, PackedLinear)
    assert report[0].name == ""
    x = integers((4, 128))
    with torch.no_grad():
        torch.testing.assert_close(packed(x), layer(x), rtol=1e-6, atol=1e-5)


def test_a_sequence_is_followed():
    model = nn.Sequential(
        QConv2d(32, 32, 3, **SIGN), nn.BatchNorm2d(32), QConv2d(32, 32, 3, **SIGN), nn.Flatten()
    )
    converted, report = convert(shaken(model))
    assert [row.output for row in report] == ["bits", "float"]
    x = integers(SHAPE)
    with torch.no_grad():
        torch.testing.assert_close(converted(x), model(x), rtol=1e-6, atol=1e-4)


class Keywords(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = QConv2d(32, 32, 3, bias=False, **SIGN)
        self.norm = nn.BatchNorm2d(32)

    def forward(self, images):
        return {"scores": self.norm(input=self.conv(x=images)).mean((2, 3))}


def test_arguments_by_keyword_and_outputs_in_a_mapping():
    model, x = shaken(Keywords()), integers(SHAPE)
    converted, report = convert(model)
    assert report[0].folded == ["norm"]
    with torch.no_grad():
        torch.testing.assert_close(converted(images=x)["scores"], model(x)["scores"])


def test_a_model_without_quantized_layers_is_copied():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    converted, report = lowbit.convert(model)
    assert converted is not model
    assert (len(report), report.bytes_before) == (0, report.bytes_after)
    assert equal(converted, model.eval(), torch.randn(1, 3, 5, 5))


def test_what_is_converted_may_be_converted_again():
    converted, _ = convert(shaken(Plain([nn.BatchNorm2d(32)])))
    again, report = convert(converted)
    assert len(report) == 0
    assert equal(again, converted, integers(SHAPE))


@pytest.mark.parametrize("to", ["int4", "Packed", ""])
def test_another_conversion_is_named(to):
    with pytest.raises(ValueError, match=f"no conversion to '{to}'; known: 'packed', 'int8'"):
        lowbit.convert(nn.Linear(1, 1), to)


def test_a_model_elsewhere_is_refused():
    with pytest.raises(ValueError, match="the model is on meta, without values"):
        lowbit.convert(nn.Linear(1, 1, device="meta"))
    parts = nn.Sequential(nn.Linear(1, 1), nn.Linear(1, 1, device="meta"))
    with pytest.raises(ValueError, match=r"several devices: 0.weight on cpu, 1.weight on meta"):
        lowbit.convert(parts)


def test_half_and_double_models_are_not_folded():
    model = shaken(Plain([nn.BatchNorm2d(32)])).double()
    converted, report = convert(model)
    assert "is torch.float64" in report.folding
    assert [row.packed for row in report] == [False, False]
    model = model.bfloat16()
    converted, report = convert(model)
    assert [row.packed for row in report] == [True, True]
    x = integers(SHAPE).bfloat16()
    with torch.no_grad():
        expected = model(x)
        torch.testing.assert_close(converted(x), expected, rtol=0.02, atol=0.5)


# What a converted model goes through.

NETWORKS = {
    "plain": (lambda: Plain([nn.MaxPool2d(2), nn.BatchNorm2d(32)]), SHAPE),
    "residual": (lambda: Residual(nn.PReLU(32)), SHAPE),
    "lenet": (
        lambda: LeNet(1, 10, 8, (32, 64), 96, kernel_size=3, padding=1, **SIGN),
        (3, 1, 8, 8),
    ),
    "mlp": (lambda: MLP(1, 10, 8, (96, 128, 96), **SIGN), (3, 1, 8, 8)),
    "resnet": (lambda: ResNet18(width=16, downsample="pool_float", **SIGN), (2, 3, 32, 32)),
}
every_network = pytest.mark.parametrize(("make", "shape"), NETWORKS.values(), ids=NETWORKS)


@pytest.fixture(name="pair")
def _pair(make, shape):
    model = shaken(make())
    return convert(model).model, model


@every_network
def test_copies_and_pickles_are_whole(pair, shape):
    converted, _ = pair
    x = integers(shape)
    file = io.BytesIO()
    torch.save(converted, file)
    file.seek(0)
    others = [
        copy.deepcopy(converted),
        pickle.loads(pickle.dumps(converted)),
        torch.load(file, weights_only=False),
    ]
    for other in others:
        assert equal(other, converted, x)


@every_network
def test_a_state_goes_to_a_copy_of_the_same_conversion(pair, make, shape):
    converted, _ = pair
    file = io.BytesIO()
    torch.save(converted.state_dict(), file)
    file.seek(0)
    state = torch.load(file, weights_only=True)
    other = convert(shaken(make(), seed=1)).model
    other.load_state_dict(state)
    assert equal(other, converted, integers(shape))


@every_network
def test_names_of_parameters_are_those_of_the_model(pair):
    converted, model = pair
    known = {name for name, _ in model.named_modules()}
    for name in converted.state_dict():
        assert name.rpartition(".")[0] in known, name


@every_network
def test_tensors_can_be_saved_by_safetensors(pair, shape, tmp_path):
    safetensors = pytest.importorskip("safetensors.torch")
    converted, _ = pair
    safetensors.save_file(converted.state_dict(), tmp_path / "model.safetensors")
    other = copy.deepcopy(converted)
    for tensor in other.state_dict().values():
        tensor.zero_()
    other.load_state_dict(safetensors.load_file(tmp_path / "model.safetensors"))
    assert equal(other, converted, integers(shape))


@every_network
def test_stored_tensors_share_no_memory_and_are_contiguous(pair):
    tensors = list(pair[0].state_dict().values())
    assert all(t.is_contiguous() for t in tensors)
    pointers = [t.untyped_storage().data_ptr() for t in tensors if t.numel()]
    assert len(pointers) == len(set(pointers))
    assert all(t.untyped_storage().nbytes() == t.numel() * t.element_size() for t in tensors)


@every_network
@pytest.mark.parametrize("size", [0, 1])
def test_batches_of_none_and_one(pair, shape, size):
    converted, model = pair
    if size == 0:
        with torch.no_grad():
            out = converted(torch.zeros(0, *shape[1:]))
        assert out.shape == (0, *model(integers(shape)).shape[1:])
    else:
        x = integers((1, *shape[1:]))
        with torch.no_grad():
            torch.testing.assert_close(converted(x), model(x), rtol=1e-5, atol=1e-5)


@every_network
def test_channels_last(pair, shape):
    converted, model = pair
    x = integers(shape).to(memory_format=torch.channels_last)
    with torch.no_grad():
        torch.testing.assert_close(converted(x), model(x), rtol=1e-5, atol=1e-5)


@every_network
def test_it_compiles_in_one_graph(pair, shape):
    converted, model = pair
    x = integers(shape)
    compiled = torch.compile(converted, backend="aot_eager", fullgraph=True)
    with torch.no_grad():
        torch.testing.assert_close(compiled(x), model(x), rtol=1e-5, atol=1e-5)


@every_network
def test_it_exports_for_any_batch_size(pair, shape):
    converted, model = pair
    dimension = {0: torch.export.Dim("n", min=2)}
    program = torch.export.export(converted, (integers(shape),), dynamic_shapes=(dimension,))
    x = integers((5, *shape[1:]))
    with torch.no_grad():
        torch.testing.assert_close(program.module()(x), model(x), rtol=1e-5, atol=1e-5)


@every_network
def test_a_half_input_under_autocast(pair, shape):
    converted, model = pair
    x = integers(shape)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        out = converted(x)
    assert out.shape == model(x).shape
    assert out.isfinite().all()


def test_packed_convolutions_take_the_place_of_trained_ones():
    converted, _ = convert(shaken(Plain([nn.BatchNorm2d(32)])))
    left = [type(m) for m in converted.children()]
    assert left[:2] == [PackedConv2d, PackedConv2d]
    assert set(left[2:]) <= {AsTrained}


@every_network
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_converted_model_may_go_to_half_precision(pair, shape, dtype):
    converted = pair[0].to(dtype)
    with torch.no_grad():
        out = converted(integers(shape).to(dtype))
    assert out.dtype == dtype
    assert out.isfinite().all()
