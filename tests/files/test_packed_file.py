"""save_packed and load_packed: the same model, its tensors once and in the file's own memory."""

import copy
import importlib
import json
import os
import pickle
import threading

import pytest
import torch
from safetensors import safe_open
from torch import nn

import lowbit
from lowbit import kernels
from lowbit.files import packed_info
from lowbit.models import LeNet, RowLSTM
from lowbit.nn import QConv2d, QEmbedding, QLinear
from lowbit.nn.packed import PackedLayer
from tests.convert._networks import SIGN, Plain, Residual, integers, shaken
from tests.models._small import FAMILIES

# These take seconds to convert.
LARGE = ("binary_densenet", "meliusnet", "meliusnet_grouped", "mobilenet_v2", "strong_baseline")
every_model = pytest.mark.parametrize(
    ("make", "shape"),
    [
        pytest.param(*made, id=name, marks=[pytest.mark.slow] if name in LARGE else [])
        for name, made in FAMILIES.items()
    ],
)
IMAGES = (3, 32, 8, 8)


def again(model, tmp_path, **options):
    """The model of a file of this one."""
    path = lowbit.save_packed(model, tmp_path / "model.safetensors")
    return lowbit.load_packed(path, **options)


def check_same(model, loaded, *inputs):
    """Two models that give the same bits, and hold the same tensors in the same layout."""
    with torch.no_grad():
        for x in inputs:
            expected, found = model(x), loaded(x)
            assert torch.equal(found, expected)
            assert found.stride() == expected.stride()
    old, new = model.state_dict(), loaded.state_dict()
    assert list(new) == list(old)
    for name, tensor in old.items():
        assert new[name].dtype == tensor.dtype
        assert torch.equal(new[name], tensor), name
        assert new[name].stride() == tensor.stride(), name
    assert [type(m).__name__ for m in loaded.modules()] == [
        type(m).__name__ for m in model.modules()
    ]
    assert [m.training for m in loaded.modules()] == [m.training for m in model.modules()]


def check_size(packed, path):
    """A file is the tensors of the state dict, each memory once, and a small header."""
    tensors = [t for t in packed.state_dict().values() if t.numel()]
    stored = sum({t.untyped_storage().data_ptr(): t.nbytes for t in tensors}.values())
    with path.open("rb") as file:
        header = int.from_bytes(file.read(8), "little")
    assert path.stat().st_size == 8 + header + stored
    assert header < 1024 + 640 * len(list(packed.modules()))


def images(shape, count=3):
    return integers((count, *shape))


@every_model
def test_a_packed_model_is_the_same_after_loading(make, shape, tmp_path):
    packed = lowbit.convert(shaken(make(**SIGN)), keep_slower=True).model
    path = lowbit.save_packed(packed, tmp_path / "model.safetensors")
    check_same(packed, lowbit.load_packed(path), images(shape), images(shape, 1))
    check_size(packed, path)


@pytest.mark.slow
@every_model
@pytest.mark.parametrize(
    "options", [{"fold": False}, {"fast_floats": True}, {"keep_slower": False}], ids=str
)
def test_so_is_one_that_was_converted_with_options(make, shape, options, tmp_path):
    model = shaken(make(input_quantization="rsign", weight_quantization="bireal_weight"))
    packed = lowbit.convert(model, **{"keep_slower": True, **options}).model
    check_same(packed, again(packed, tmp_path), images(shape))


@pytest.mark.parametrize("name", ["resnet20_irnet", "lenet_twn"])
@pytest.mark.parametrize("options", [{"fold": False}, {"fast_floats": True}], ids=str)
def test_options_of_convert_on_a_few(name, options, tmp_path):
    make, shape = FAMILIES[name]
    packed = lowbit.convert(shaken(make(**SIGN)), keep_slower=True, **options).model
    check_same(packed, again(packed, tmp_path), images(shape))


def int8_static(model, x):
    prepared = lowbit.prepare(model)
    prepared(x)
    return lowbit.convert(prepared, to="int8").model


@every_model
def test_an_int8_model_is_the_same_after_loading(make, shape, tmp_path):
    x = images(shape)
    model = int8_static(shaken(make()), x)
    check_same(model, again(model, tmp_path), x)


@pytest.mark.parametrize("name", ["resnet20_irnet", "reactnet", "xnor_alexnet"])
def test_so_is_one_of_binary_and_int8_layers(name, tmp_path):
    make, shape = FAMILIES[name]
    x = images(shape)
    model = int8_static(shaken(make(**SIGN)), x)
    check_same(model, again(model, tmp_path), x)


def test_so_is_a_dynamic_one(tmp_path):
    make, shape = FAMILIES["cnv"]
    x = images(shape)
    model = lowbit.quantize_dynamic(shaken(make()))
    check_same(model, again(model, tmp_path), x)


def test_so_is_a_dynamic_lstm(tmp_path):
    model = lowbit.quantize_dynamic(RowLSTM(1, 10, 8, hidden=16))
    check_same(model, again(model, tmp_path), torch.randn(3, 1, 8, 8))


def test_a_float_lstm_keeps_its_weights_in_one_place(tmp_path):
    model = RowLSTM(1, 10, 8, hidden=16).eval()
    loaded = again(model, tmp_path)
    check_same(model, loaded, torch.randn(3, 1, 8, 8))
    (lstm,) = [m for m in loaded.modules() if isinstance(m, nn.LSTM)]
    with torch.no_grad():
        lstm.weight_ih_l0.zero_()
    assert lstm._flat_weights[0].count_nonzero() == 0


@pytest.mark.parametrize(
    "quantization",
    [
        {"input_quantization": "dorefa_input", "weight_quantization": {"name": "int_k", "bits": 2}},
        {"input_quantization": "sign", "weight_quantization": "twn"},
        {"input_quantization": "rsign", "weight_quantization": "xnor"},
        {"input_quantization": "hwgq", "weight_quantization": "adabin_weight"},
    ],
    ids=lambda q: f"{q['input_quantization']}-{q['weight_quantization']}",
)
def test_every_coding_of_layers(quantization, tmp_path):
    model = nn.Sequential(
        QConv2d(32, 16, 3, padding=1, **quantization),
        nn.BatchNorm2d(16),
        QConv2d(16, 16, 3, groups=2, stride=2, padding=1, **quantization),
        nn.Flatten(),
        QLinear(256, 7, **quantization),
    )
    model = shaken(model, shape=IMAGES)
    packed, report = lowbit.convert(model, keep_slower=True)
    assert any(row.packed for row in report)
    check_same(packed, again(packed, tmp_path), integers(IMAGES))


def test_weights_that_lie_channels_last_do_so_after_loading(tmp_path):
    model = shaken(FAMILIES["resnet20_irnet"][0](**SIGN)).to(memory_format=torch.channels_last)
    packed = lowbit.convert(model, keep_slower=True).model
    weight = dict(packed.named_parameters())["conv1.weight"]
    assert not weight.is_contiguous()
    check_same(packed, again(packed, tmp_path), images((3, 16, 16)))


def test_what_is_shared_is_stored_once_and_shared_after_loading(tmp_path):
    conv = QConv2d(64, 64, 3, padding=1, bias=False, **SIGN)
    tied = nn.Linear(16, 16, bias=False)
    model = nn.Sequential(conv, conv, nn.Flatten(2), tied, nn.Linear(16, 16, bias=False))
    model[4].weight = tied.weight
    packed = lowbit.convert(model, keep_slower=True).model
    path = lowbit.save_packed(packed, tmp_path / "model.safetensors")
    loaded = lowbit.load_packed(path)
    check_same(packed, loaded, torch.randn(2, 64, 4, 4))
    assert loaded.get_submodule("0") is loaded.get_submodule("1")
    assert loaded.get_submodule("4").weight is loaded.get_submodule("3").weight
    assert sum("float32 16 16" in kind for kind in packed_info(path).tensors.values()) == 1


def mapped(path):
    """Ranges of memory that are the file's."""
    with open("/proc/self/maps") as file:
        lines = [line.split() for line in file if line.rstrip().endswith(str(path))]
    return [[int(end, 16) for end in line[0].split("-")] for line in lines]


@pytest.mark.skipif(not os.path.exists("/proc/self/maps"), reason="asks Linux what is mapped")
def test_tensors_are_the_file_mapped_into_memory(tmp_path):
    model = nn.Sequential(QConv2d(64, 64, 3, **SIGN), nn.Flatten(), nn.Linear(2304, 16))
    packed = lowbit.convert(model.eval(), keep_slower=True).model
    path = lowbit.save_packed(packed, tmp_path / "model.safetensors")
    loaded = lowbit.load_packed(path)
    ranges = mapped(path)
    assert ranges
    for name, tensor in loaded.state_dict().items():
        inside = any(begin <= tensor.data_ptr() < end for begin, end in ranges)
        assert inside or tensor.nbytes < 64, name
        assert tensor.data_ptr() % 64 == 0, name


def test_what_is_written_to_a_loaded_model_does_not_reach_the_file(tmp_path):
    packed = lowbit.convert(Plain([]), keep_slower=True).model
    path = lowbit.save_packed(packed, tmp_path / "model.safetensors")
    before = path.read_bytes()
    for tensor in lowbit.load_packed(path).state_dict().values():
        tensor.zero_()
    assert path.read_bytes() == before
    check_same(packed, lowbit.load_packed(path), integers(IMAGES))


def test_the_same_model_makes_the_same_file(tmp_path):
    packed = lowbit.convert(shaken(Residual()), keep_slower=True).model
    first = lowbit.save_packed(packed, tmp_path / "1", {"a": 1}, {"b": 2}).read_bytes()
    assert lowbit.save_packed(packed, tmp_path / "2", {"a": 1}, {"b": 2}).read_bytes() == first
    loaded = lowbit.load_packed(tmp_path / "1")
    assert lowbit.save_packed(loaded, tmp_path / "1", {"a": 1}, {"b": 2}).read_bytes() == first
    assert sorted(os.listdir(tmp_path)) == ["1", "2"]


def test_a_loaded_model_is_a_module_as_any_other(tmp_path):
    packed = lowbit.convert(shaken(Residual()), keep_slower=True).model
    x = integers(IMAGES)
    with torch.no_grad():
        expected = packed(x)
        loaded = again(packed, tmp_path)
        assert torch.equal(copy.deepcopy(loaded)(x), expected)
        assert torch.equal(pickle.loads(pickle.dumps(loaded))(x), expected)
        other = lowbit.convert(shaken(Residual(), seed=1), keep_slower=True).model
        assert not torch.equal(other(x), expected)
        other.load_state_dict(loaded.state_dict())
        assert torch.equal(other(x), expected)
        loaded.load_state_dict(packed.state_dict())
        assert torch.equal(loaded.half().float()(x.half().float()), packed(x.half().float()))


def test_loading_draws_no_random_number_and_leaves_the_panels_ready(tmp_path):
    path = lowbit.save_packed(lowbit.convert(Plain([]), keep_slower=True).model, tmp_path / "f")
    state = torch.get_rng_state()
    loaded = lowbit.load_packed(path)
    assert torch.equal(torch.get_rng_state(), state)
    layers = [m for m in loaded.modules() if isinstance(m, PackedLayer)]
    assert layers
    assert all(layer.panel is not None for layer in layers)


def test_configuration_and_metadata_are_read_without_the_model(tmp_path):
    packed = lowbit.convert(LeNet(1, 10, 28, **SIGN)).model
    config = {"model": {"name": "LeNet", "sizes": [1, 2.5, None, "é"]}, "seed": 0}
    path = lowbit.save_packed(packed, tmp_path / "f", config, {"accuracy": 0.99})
    info = packed_info(path)
    assert (info.version, info.lowbit, info.config) == (1, lowbit.__version__, config)
    assert info.metadata == {"accuracy": 0.99}
    assert info.needs == {}
    with safe_open(path, "pt") as file:
        assert set(info.tensors) == set(file.keys())
        shown = {k: f"{str(file.get_tensor(k).dtype)[6:]}" for k in info.tensors}
    assert {k: v.split(" ")[0] for k, v in info.tensors.items()} == shown


class Odd(nn.Module):
    """What torch.fx cannot follow."""

    def __init__(self, width=64):
        super().__init__()
        self.width = width
        self.embedding = QEmbedding(10, 64, weight_quantization="sign")
        self.fc = QLinear(64, width, **SIGN)
        self.last = nn.Linear(width, 3)

    def forward(self, indices):
        x = self.embedding(indices)
        if x.sum() > 1e9:
            x = x + 1
        return self.last(self.fc(x[..., : self.width]))


def test_a_class_of_the_users_comes_from_an_instance(tmp_path):
    packed, report = lowbit.convert(Odd(), keep_slower=True)
    assert report.folding
    path = lowbit.save_packed(packed, tmp_path / "f")
    assert packed_info(path).needs == {"": f"{__name__}.Odd"}
    x = torch.arange(10)
    instance = Odd()
    before = copy.deepcopy(instance.state_dict())
    check_same(packed, lowbit.load_packed(path, model=instance), x)
    check_same(packed, lowbit.load_packed(path, Odd), x)
    with torch.device("meta"):
        empty = Odd()
    check_same(packed, lowbit.load_packed(path, empty), x)
    assert all(torch.equal(t, before[k]) for k, t in instance.state_dict().items())
    assert isinstance(instance.fc, QLinear)


def test_a_model_of_lowbit_that_torch_fx_cannot_follow_needs_none(tmp_path):
    model = lowbit.quantize_dynamic(RowLSTM(1, 10, 8, hidden=16))
    path = lowbit.save_packed(model, tmp_path / "f")
    assert packed_info(path).needs == {}
    assert type(lowbit.load_packed(path)) is RowLSTM


def test_the_file_holds_no_code(tmp_path):
    packed = lowbit.convert(shaken(Residual()), keep_slower=True).model
    path = lowbit.save_packed(packed, tmp_path / "f")
    with safe_open(path, "pt") as file:
        entry = json.loads(file.metadata()["lowbit.packed"])
    names = set()

    def collect(parts):
        names.add(parts.get("class"))
        for child in parts.get("children", {}).values():
            collect(child)

    collect(entry["model"])
    assert all(name is None or name.startswith(("torch.", "lowbit.")) for name in names)


@pytest.mark.parametrize("isa", kernels.isas())
def test_a_file_loads_on_a_processor_of_other_instructions(isa, tmp_path, monkeypatch):
    packed = lowbit.convert(shaken(Residual()), keep_slower=True).model
    x = integers(IMAGES)
    with torch.no_grad():
        expected = packed(x)
        monkeypatch.setenv("LOWBIT_ISA", isa)
        assert torch.equal(again(packed, tmp_path)(x), expected)


def test_a_model_of_fast_floats_loads_where_one_dnn_is_not(tmp_path, monkeypatch):
    make, shape = FAMILIES["resnet20_irnet"]
    packed = lowbit.convert(shaken(make(**SIGN)), keep_slower=True, fast_floats=True).model
    x = images(shape, 1)
    with torch.no_grad():
        expected = packed(x)
        monkeypatch.setattr(importlib.import_module("lowbit.convert._float"), "ONE_DNN", None)
        loaded = again(packed, tmp_path)
        torch.testing.assert_close(loaded(x), expected, rtol=1e-4, atol=1e-4)


def test_threads_may_write_the_same_file(tmp_path):
    model, path, errors = nn.Linear(256, 256), tmp_path / "model.safetensors", []
    together = threading.Barrier(4)

    def save():
        together.wait()
        try:
            for _ in range(20):
                lowbit.save_packed(model, path)
        except OSError as error:
            errors.append(error)

    threads = [threading.Thread(target=save) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert torch.equal(lowbit.load_packed(path).weight, model.weight)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
