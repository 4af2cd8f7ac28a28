"""Checkpoints of torch.ao's quantized models become plain ones that load here, module by module."""

import subprocess
import sys

import pytest
import torch
from torch import nn

from lowbit.export import legacy
from lowbit.nn import quantized as nnq
from lowbit.nn.quantized import dynamic
from lowbit.qtensor import QTensor, from_torch_quantized, to_torch_quantized
from tests.nn.quantized._models import activation, normal

aoq = pytest.importorskip("torch.ao.nn.quantized")
aod = pytest.importorskip("torch.ao.nn.quantized.dynamic")
fused = pytest.importorskip("torch.ao.nn.intrinsic.quantized")
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


def drawn(module: nn.Module, per_channel: bool = True) -> nn.Module:
    """A layer of torch.ao with a drawn weight, bias and output scale."""
    transposed = "Transpose" in type(module).__name__
    real = normal(*module.weight().shape, seed=4)
    if per_channel and not transposed:
        scales = 0.01 + 0.001 * torch.arange(real.shape[0])
        zeros = torch.zeros(real.shape[0], dtype=torch.int64)
        weight = torch.quantize_per_channel(real, scales, zeros, 0, torch.qint8)
    else:
        weight = torch.quantize_per_tensor(real, 0.02, 0, torch.qint8)
    bias = module.bias()
    module.set_weight_bias(weight, None if bias is None else normal(len(bias), seed=5))
    if hasattr(module, "scale"):
        module.scale, module.zero_point = 0.11, 97
    return module


def affine(module: nn.Module) -> nn.Module:
    module.weight, module.bias = nn.Parameter(normal(8)), nn.Parameter(normal(8, seed=1))
    module.scale, module.zero_point = torch.tensor(0.05), torch.tensor(120)
    return module


def embedding(kind: str, dtype: torch.dtype) -> nn.Module:
    scheme = torch.per_channel_affine_float_qparams
    observer = ao.PerChannelMinMaxObserver(dtype=dtype, qscheme=scheme, ch_axis=0)
    weight = normal(6, 8)
    observer(weight)
    module = getattr(aoq, kind)(6, 8, dtype=dtype)
    qparams = observer.calculate_qparams()
    module.set_weight(torch.quantize_per_channel(weight, *qparams, 0, dtype))
    return module


def prelu() -> nn.Module:
    module = aoq.PReLU(0.041, 31, 8)
    module.set_weight(torch.quantize_per_tensor(normal(8), 0.1, 100, torch.quint8))
    return module


def norm(name: str) -> tuple:
    weights = (nn.Parameter(normal(8)), nn.Parameter(normal(8, seed=1)))
    first = {"LayerNorm": (8,), "GroupNorm": (2, 8)}.get(name, (8,))
    legacy = getattr(aoq, name)(*first, *weights, 0.05, 120)
    return legacy, getattr(nnq, name)(*first, torch.zeros(8), torch.zeros(8), 1.0, 0)


IMAGE = (2, 8, 6, 5)
# A module of torch.ao, an empty one of ours, and the shape of an input.
STATIC = {
    "Linear": (lambda: drawn(aoq.Linear(8, 5)), lambda: nnq.Linear(8, 5), (3, 8)),
    "Linear.one_scale": (
        lambda: drawn(aoq.Linear(8, 5, bias_=False), False),
        lambda: nnq.Linear(8, 5, bias_=False),
        (3, 8),
    ),
    "LinearReLU": (lambda: drawn(fused.LinearReLU(8, 5)), lambda: nnq.LinearReLU(8, 5), (3, 8)),
    **{
        f"Conv{n}d": (
            lambda n=n: drawn(getattr(aoq, f"Conv{n}d")(8, 6, 2)),
            lambda n=n: getattr(nnq, f"Conv{n}d")(8, 6, 2),
            (2, 8, *[5] * n),
        )
        for n in (1, 2, 3)
    },
    **{
        f"ConvReLU{n}d": (
            lambda n=n: drawn(getattr(fused, f"ConvReLU{n}d")(8, 6, 2, bias=False)),
            lambda n=n: getattr(nnq, f"ConvReLU{n}d")(8, 6, 2, bias=False),
            (2, 8, *[5] * n),
        )
        for n in (1, 2, 3)
    },
    "BatchNorm2d": (lambda: affine(aoq.BatchNorm2d(8)), lambda: nnq.BatchNorm2d(8), IMAGE),
    "BatchNorm3d": (
        lambda: affine(aoq.BatchNorm3d(8)),
        lambda: nnq.BatchNorm3d(8),
        (2, 8, 3, 3, 3),
    ),
    **{
        name: (lambda name=name: norm(name)[0], lambda name=name: norm(name)[1], shape)
        for name, shape in {
            "LayerNorm": (2, 3, 8),
            "GroupNorm": IMAGE,
            "InstanceNorm1d": (2, 8, 9),
            "InstanceNorm2d": IMAGE,
            "InstanceNorm3d": (2, 8, 3, 3, 3),
        }.items()
    },
    "Hardswish": (lambda: aoq.Hardswish(0.05, 9), lambda: nnq.Hardswish(1.0, 0), IMAGE),
    "LeakyReLU": (lambda: aoq.LeakyReLU(0.05, 9), lambda: nnq.LeakyReLU(1.0, 0), IMAGE),
    "ReLU6": (lambda: aoq.ReLU6(), lambda: nnq.ReLU6(), IMAGE),
    "MaxPool2d": (lambda: aoq.MaxPool2d(2), lambda: nnq.MaxPool2d(2), IMAGE),
    "Dropout": (lambda: aoq.Dropout(), lambda: nnq.Dropout(), IMAGE),
}
# torch.ao leaves their scales out of a state dict: these go from model to model alone.
UNSAVED = {
    "ELU": (lambda: aoq.ELU(0.05, 60, 1.3), lambda: nnq.ELU(1.0, 0, 1.3), IMAGE),
    "Sigmoid": (lambda: aoq.Sigmoid(1 / 256, 0), lambda: nnq.Sigmoid(1.0, 0), IMAGE),
    "Softmax": (lambda: aoq.Softmax(1, 1 / 256, 0), lambda: nnq.Softmax(1, 1.0, 0), IMAGE),
    "PReLU": (prelu, lambda: nnq.PReLU(1.0, 0, 8), IMAGE),
}


def inside(module: nn.Module) -> nn.Module:
    """With a nested name."""
    return nn.ModuleDict({"block": nn.ModuleList([nn.Identity(), module])})


def assert_plain(state: dict) -> None:
    """Tensors of plain dtypes, that load without running code."""
    for value in state.values():
        assert type(value) is torch.Tensor
        assert not value.is_quantized
        assert not value.requires_grad


def through_files(model: nn.Module, folder, **options) -> dict:
    torch.save(model.state_dict(), folder / "old.pt")
    legacy.convert(folder / "old.pt", folder / "new.pt", **options)
    return torch.load(folder / "new.pt", weights_only=True)


def assert_same(found: QTensor, expected: torch.Tensor) -> None:
    expected = from_torch_quantized(expected)
    assert found.q_scale() == pytest.approx(expected.q_scale(), rel=1e-7)
    assert found.q_zero_point() == expected.q_zero_point()
    off = (found.values.long() - expected.values.long()).abs()
    assert off.max() <= 1
    assert (off != 0).sum() <= 2  # ties, and torch's multiply-add


@pytest.mark.parametrize("name", [*STATIC, *UNSAVED])
def test_a_static_module_comes_through_a_file(name, tmp_path):
    make, empty, shape = (STATIC | UNSAVED)[name]
    theirs, ours = inside(make()), inside(empty())
    if name in UNSAVED:
        with pytest.raises(RuntimeError, match=r"Missing key.*block\.1\.scale"):
            ours.load_state_dict(through_files(theirs, tmp_path))
        state = nnq.from_legacy_state_dict(theirs)
    else:
        state = through_files(theirs, tmp_path)
    assert_plain(state)
    ours.load_state_dict(state)
    x = activation(*shape)
    assert_same(ours["block"][1].eval()(x), theirs["block"][1](to_torch_quantized(x)))


TRANSPOSED = [getattr(aoq, f"ConvTranspose{n}d") for n in (1, 2, 3)]


# Not by what they return: torch's transposed convolutions are wrong here and there, by an engine's
# kernel (2.14.1: of 8 to 6 channels by oneDNN's).
@pytest.mark.parametrize("kind", [fused.ConvAdd2d, fused.ConvAddReLU2d, *TRANSPOSED])
def test_weight_bias_and_scale_come_through(kind, tmp_path):
    theirs = drawn(kind(8, 6, 2))
    ours = getattr(nnq, kind.__name__)(8, 6, 2)
    ours.load_state_dict(through_files(theirs, tmp_path))
    assert ours.weight().equal(from_torch_quantized(theirs.weight()))
    assert torch.equal(ours.bias(), theirs.bias())
    assert (ours.scale, ours.zero_point) == (pytest.approx(0.11), 97)


def test_operations_and_the_two_ends_come_through(tmp_path):
    theirs = nn.ModuleDict({"add": aoq.QFunctional(), "q": aoq.Quantize(0.3, 7, torch.quint8)})
    theirs["add"].scale, theirs["add"].zero_point = 0.21, 13
    ours = nn.ModuleDict({"add": nnq.QFunctional(), "q": nnq.Quantize(1.0, 0, "quint8")})
    ours.load_state_dict(through_files(theirs, tmp_path))
    assert (ours["add"].scale, ours["add"].zero_point) == (pytest.approx(0.21), 13)
    assert (ours["q"].scale, ours["q"].zero_point) == (pytest.approx(0.3), 7)


@pytest.mark.parametrize("dtype", ["quint8", "quint4x2", "quint2x4"])
@pytest.mark.parametrize("kind", ["Embedding", "EmbeddingBag"])
def test_embeddings_come_through(kind, dtype, tmp_path):
    if dtype == "quint2x4":
        pytest.skip("torch quantizes no tensor to quint2x4")
    theirs = inside(embedding(kind, getattr(torch, dtype)))
    ours = inside(getattr(nnq, kind)(6, 8, dtype=dtype))
    state = through_files(theirs, tmp_path)
    assert_plain(state)
    ours.load_state_dict(state)
    arguments = [torch.tensor([0, 5, 2, 2])] + [torch.tensor([0, 1])] * (kind == "EmbeddingBag")
    found, expected = (model["block"][1](*arguments) for model in (ours, theirs))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


RECURRENT = {
    "LSTM": (nn.LSTM, (7, 9), {}, (4, 3, 7)),
    "LSTM.two_layers": (nn.LSTM, (7, 9, 2), {}, (4, 3, 7)),
    "LSTM.two_directions": (nn.LSTM, (7, 9), {"bidirectional": True}, (4, 3, 7)),
    "LSTM.square": (nn.LSTM, (9, 9, 3), {}, (4, 3, 9)),
    "LSTM.square_four": (nn.LSTM, (9, 9, 2), {"bidirectional": True}, (4, 3, 9)),
    "GRU": (nn.GRU, (7, 9, 2), {"bidirectional": True, "batch_first": True}, (4, 3, 7)),
    "LSTMCell": (nn.LSTMCell, (7, 9), {}, (4, 7)),
    "GRUCell": (nn.GRUCell, (7, 9), {}, (4, 7)),
    "RNNCell": (nn.RNNCell, (7, 9), {"nonlinearity": "relu"}, (4, 7)),
    "Linear": (nn.Linear, (7, 9), {}, (4, 7)),
    "Linear.no_bias": (nn.Linear, (7, 9, False), {}, (4, 7)),
}


def tensors(out) -> list[torch.Tensor]:
    if isinstance(out, torch.Tensor):
        return [out]
    return [tensor for part in out for tensor in tensors(part)]


@pytest.mark.parametrize("dtype", ["int8", "float16"])
@pytest.mark.parametrize("name", RECURRENT)
def test_a_dynamic_module_comes_through_a_file(name, dtype, tmp_path):
    kind, arguments, keywords, shape = RECURRENT[name]
    torch.manual_seed(0)
    half = dtype == "float16"
    spec = torch.float16 if half else torch.qint8
    theirs = ao.quantize_dynamic(inside(kind(*arguments, **keywords)), {kind}, dtype=spec)
    state = through_files(theirs, tmp_path)
    assert_plain(state)
    ours = inside(getattr(dynamic, kind.__name__)(*arguments, dtype=dtype, **keywords))
    ours.load_state_dict(state)
    x = normal(*shape)
    found, expected = (tensors(model["block"][1](x)) for model in (ours, theirs))
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3 if half else 2e-6, atol=1e-3 if half else 2e-5)


@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize("transposed", [False, True])
def test_dynamic_convolutions_come_through(dims, transposed, tmp_path):
    name = f"Conv{'Transpose' if transposed else ''}{dims}d"
    theirs = drawn(getattr(aod, name)(4, 6, 2))
    ours = getattr(dynamic, name)(4, 6, 2)
    ours.load_state_dict(through_files(theirs, tmp_path))
    assert ours.weight().equal(from_torch_quantized(theirs.weight()))
    assert torch.equal(ours.bias(), theirs.bias())


def test_a_fused_dynamic_layer_comes_through(tmp_path):
    import torch.ao.nn.intrinsic.quantized.dynamic as fused_dynamic

    theirs = fused_dynamic.LinearReLU(7, 9)
    theirs.set_weight_bias(torch.quantize_per_tensor(normal(9, 7), 0.02, 0, torch.qint8), normal(9))
    ours = dynamic.LinearReLU(7, 9)
    ours.load_state_dict(through_files(theirs, tmp_path))
    x = normal(4, 7)
    torch.testing.assert_close(ours(x), theirs(x), rtol=2e-6, atol=2e-5)


@pytest.mark.parametrize("both", [False, True])
def test_directions_that_no_shape_tells_are_asked_for(both, tmp_path, capsys):
    layers = {"bidirectional": True} if both else {"num_layers": 2}
    theirs = ao.quantize_dynamic(inside(nn.LSTM(9, 9, **layers)), {nn.LSTM})
    with pytest.raises(ValueError, match=r"bidirectional=\{'block\.1': True\}"):
        nnq.from_legacy_state_dict(theirs.state_dict())
    ours = inside(dynamic.LSTM(9, 9, **layers))
    ours.load_state_dict(nnq.from_legacy_state_dict(theirs))  # the model tells
    ours = inside(dynamic.LSTM(9, 9, **layers))
    torch.save(theirs.state_dict(), tmp_path / "old.pt")
    option = "--bidirectional" if both else "--one-direction"
    arguments = [str(tmp_path / "old.pt"), str(tmp_path / "new.pt")]
    assert legacy.main(arguments) == 1
    assert "two layers or two directions" in capsys.readouterr().err
    assert legacy.main([*arguments, option, "block.1"]) == 0
    ours.load_state_dict(torch.load(tmp_path / "new.pt", weights_only=True))
    x = normal(4, 3, 9)
    for a, b in zip(tensors(ours["block"][1](x)), tensors(theirs["block"][1](x)), strict=True):
        torch.testing.assert_close(a, b, rtol=2e-6, atol=2e-5)


def test_the_command_converts_an_entry_of_a_checkpoint(tmp_path):
    model = nn.Sequential(drawn(aoq.Linear(8, 5)))
    old, new = tmp_path / "old.ckpt", tmp_path / "new.pt"
    torch.save({"epoch": 3, "state_dict": model.state_dict(), "optimizer": {"lr": 0.1}}, old)
    command = [sys.executable, "-m", "lowbit.export.legacy", str(old), str(new)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert "it has 'epoch', 'state_dict', 'optimizer'; --key names the entry" in done.stderr
    assert "Traceback" not in done.stderr
    assert not new.exists()
    done = subprocess.run([*command, "--key", "state_dict"], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"{new}: 6 plain entries")
    assert_plain(torch.load(new, weights_only=True))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new.pt", "old.ckpt"]


def bad_files(folder) -> dict:
    torch.save(nn.Sequential(aoq.Linear(8, 5)), folder / "model.pt")
    (folder / "text.pt").write_text("weights")
    torch.save([1, 2], folder / "list.pt")
    torch.save({"fc.extra": [1]}, folder / "extra.pt")
    return {
        "absent.pt": "no file at",
        "model.pt": "from_legacy_state_dict(model)",
        "text.pt": "no state dict that can be read safely",
        "list.pt": "it is a list",
        "extra.pt": "fc.extra is a list, which is not a plain tensor",
    }


def test_each_bad_file_is_one_line_and_leaves_the_new_one_alone(tmp_path, capsys):
    new = tmp_path / "new.pt"
    new.write_bytes(b"before")
    for name, message in bad_files(tmp_path).items():
        assert legacy.main([str(tmp_path / name), str(new)]) == 1
        line = capsys.readouterr().err
        assert message in line
        assert line.startswith("error: ")
        assert line.count("\n") == 1
        assert new.read_bytes() == b"before"
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_a_whole_model_that_was_loaded_converts_as_well():
    model = nn.Sequential(drawn(aoq.Linear(8, 5)), aoq.ELU(0.05, 60))
    ours = nn.Sequential(nnq.Linear(8, 5), nnq.ELU(1.0, 0))
    ours.load_state_dict(nnq.from_legacy_state_dict(model))
    assert (ours[1].scale, ours[1].zero_point) == (pytest.approx(0.05), 60)
