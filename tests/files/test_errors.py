"""Whatever is wrong with a packed file is one PackedFileError that says what."""

import os

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import lowbit
from lowbit import PackedFileError
from lowbit.files import packed_info
from lowbit.nn import QLinear
from tests.convert._networks import SIGN
from tests.files._files import ENTRY, Small, header_of, rewrite, small_file


@pytest.fixture
def path(tmp_path):
    return small_file(tmp_path)


def refuses(path, match, **options):
    for read in (lowbit.load_packed, packed_info):
        with pytest.raises(PackedFileError, match=match) as caught:
            read(path, **options)
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)


def refuses_to_load(path, match, **options):
    with pytest.raises(PackedFileError, match=match) as caught:
        lowbit.load_packed(path, **options)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_small_file_is_fine_and_so_is_one_that_safetensors_wrote_again(path):
    x = torch.randn(2, 16, 5, 5)
    with torch.no_grad():
        expected = lowbit.load_packed(path)(x)
        assert torch.equal(lowbit.load_packed(rewrite(path))(x), expected)


def test_no_file(tmp_path):
    refuses(tmp_path / "none.safetensors", "no packed file at")
    refuses(tmp_path, "no packed file at")


@pytest.mark.parametrize("contents", [b"", b"{}", b"a text, and no numbers\n" * 9, b"\0" * 99])
def test_no_safetensors_file(tmp_path, contents):
    path = tmp_path / "file"
    path.write_bytes(contents)
    refuses(path, "no safetensors file")


def test_a_checkpoint_of_torch(tmp_path):
    torch.save({"state_dict": {"weight": torch.ones(3)}}, tmp_path / "best.ckpt")
    refuses(tmp_path / "best.ckpt", "no safetensors file")


@pytest.mark.parametrize("share", [0.05, 0.5, 0.9, 1.0])
def test_a_truncated_file(path, share):
    contents = path.read_bytes()
    path.write_bytes(contents[: int(share * len(contents)) - 1])
    refuses(path, "not all of one")


def test_a_file_of_something_else(tmp_path):
    save_file({"weight": torch.ones(3)}, tmp_path / "other", {"format": "pt"})
    refuses(tmp_path / "other", "of something else")
    save_file({"weight": torch.ones(3)}, tmp_path / "other")
    refuses(tmp_path / "other", "of something else")


@pytest.mark.parametrize("entry", ["", "{", "[]", "1", '{"version": 1}', "null"])
def test_a_damaged_entry(tmp_path, entry):
    save_file({"weight": torch.ones(3)}, tmp_path / "other", {ENTRY: entry})
    refuses(tmp_path / "other", "damaged")


def test_a_newer_version(path):
    def newer(header):
        header |= {"version": 2, "lowbit": "9.1"}

    refuses(rewrite(path, newer), r"version 2 .* lowbit 9\.1 .* reads 1: install lowbit>=9\.1")


def test_a_tensor_is_missing(path):
    rewrite(path, tensors=lambda held: held.pop("fc.weight"))
    refuses_to_load(path, "lacks tensors .*1: fc.weight")


def test_a_tensor_more(path):
    rewrite(path, tensors=lambda held: held.update(more=torch.ones(3)))
    refuses_to_load(path, "not in its description, 1: more")


@pytest.mark.parametrize("change", [lambda t: t.T.contiguous(), lambda t: t.double()])
def test_a_tensor_of_another_kind(path, change):
    rewrite(path, tensors=lambda held: held.update({"last.weight": change(held["last.weight"])}))
    refuses_to_load(path, "last.weight of .* is float.* of its description float32 3 64")


def test_a_layout_that_reaches_out_of_its_tensor(path):
    def reach(header):
        linear = header["model"]["children"]["last"]["parameters"]
        linear["weight"] = {"is": "float32 3 64", "shape": [3, 64], "strides": [100, 1]}

    refuses_to_load(rewrite(path, reach), "has 192 numbers")


def test_an_unknown_class(path):
    def change(header):
        header["model"]["children"]["last"]["class"] = "torch.nn.Linear2"

    refuses_to_load(rewrite(path, change), "last is a torch.nn.Linear2, a class that this lowbit")


@pytest.mark.parametrize(
    ("key", "value"), [("arguments", {"in_features": -1}), ("children", 3), ("buffers", {"a": []})]
)
def test_a_description_of_no_module(path, key, value):
    def change(header):
        header["model"]["children"]["last"][key] = value

    refuses_to_load(rewrite(path, change), "damaged")


@pytest.mark.parametrize("child", ["conv", "fc"])
def test_a_description_that_lost_something(path, child):
    """Some of it has defaults: what is made without is another model."""

    def lose(header):
        part = header["model"]["children"][child]["arguments"]
        del part[next(name for name in part if name != "geometry")]

    refuses_to_load(rewrite(path, lose), "not the one that lowbit wrote")


class Own(nn.Module):
    def __init__(self, fc=None):
        super().__init__()
        self.fc = fc or QLinear(64, 64, **SIGN)

    def forward(self, x):
        return self.fc(x) if x.sum() < 1e9 else x


def test_a_class_of_the_users_and_no_instance(tmp_path):
    packed = lowbit.convert(Own(), keep_slower=True).model
    path = lowbit.save_packed(packed, tmp_path / "own")
    refuses_to_load(path, r"the model is a .*Own, neither of torch.nn nor of lowbit.* model=")
    refuses_to_load(path, r"model has a .*Small there", model=Small())
    nested = lowbit.save_packed(nn.Sequential(packed), tmp_path / "nested")
    refuses_to_load(nested, r"0 is a .*Own, and model has nothing there", model=Own())


def test_what_cannot_be_saved(tmp_path):
    path = tmp_path / "file"
    packed = lowbit.convert(Small(), keep_slower=True)
    with pytest.raises(PackedFileError, match=r"not a Converted.* \.model"):
        lowbit.save_packed(packed, path)
    hooked = lowbit.convert(Small(), keep_slower=True).model
    hooked.last.register_forward_hook(lambda *_: None)
    with pytest.raises(PackedFileError, match=r"last \(Linear\): it has hooks"):
        lowbit.save_packed(hooked, path)
    with torch.device("meta"):
        empty = nn.Linear(3, 3)
    with pytest.raises(PackedFileError, match="meta"):
        lowbit.save_packed(empty, path)
    odd = nn.Linear(3, 3)
    odd.notify = print
    with pytest.raises(PackedFileError, match="attribute notify is <built-in function print>"):
        lowbit.save_packed(odd, path)
    for name, value in (("config", {"x": torch.ones(1)}), ("metadata", {"x": object()})):
        with pytest.raises(PackedFileError, match=f"{name} is plain values"):
            lowbit.save_packed(packed.model, path, **{name: value})
    with pytest.raises(PackedFileError, match="config is a dict, not a list"):
        lowbit.save_packed(packed.model, path, [1])
    assert os.listdir(tmp_path) == []


def test_a_place_that_is_none(tmp_path):
    packed = lowbit.convert(Small(), keep_slower=True).model
    with pytest.raises(PackedFileError, match="which is no folder"):
        lowbit.save_packed(packed, tmp_path / "none" / "file")
    with pytest.raises(PackedFileError, match="it is a folder"):
        lowbit.save_packed(packed, tmp_path)


def test_a_file_is_whole_or_as_it_was(path, monkeypatch):
    before = path.read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("lowbit.files._safetensors.ctypes.string_at", full)
    with pytest.raises(OSError, match="No space"):
        lowbit.save_packed(lowbit.load_packed(path), path)
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == [path.name]


CALL = ["y", "call_function", "torch.relu", [{"node": "x"}], {}]
GETATTR = [{"node": "x"}, "__class__"]
HOSTILE = {
    "function": ["y", "call_function", "os.system", ["true"], {}],
    "load": ["y", "call_function", "torch.load", ["x"], {}],
    "from_file": ["y", "call_function", "torch.from_file", ["x"], {}],
    "attribute": ["y", "call_function", "getattr", GETATTR, {}],
    "computed attribute": ["y", "call_function", "getattr", [{"node": "x"}, {"node": "x"}], {}],
    "method": ["y", "call_method", "__reduce__", [{"node": "x"}], {}],
    "path of a method": ["y", "call_method", "data.numpy", [{"node": "x"}], {}],
    "kind": ["y", "exec", "torch.relu", [], {}],
    "name": ["y, z = print(1)", *CALL[1:]],
    "placeholder": ["y", "placeholder", "y=print(1)", [], {}],
    "module": ["y", "call_module", 'last"); print("', [{"node": "x"}], {}],
    "attribute of the model": ["y", "get_attr", "last.weight; print(1)", [], {}],
    "argument": ["y", "call_function", "torch.relu", [{"function": "torch.relu"}], {}],
    "keyword": [*CALL[:4], {"inplace=print(1), a": 1}],
    "keyword of Python": [*CALL[:4], {"lambda": 1}],
    "value": ["y", "call_function", "torch.relu", [{"module": ""}], {}],
    "node": ["y", "call_function", "torch.relu", [{"node": "nowhere"}], {}],
}


@pytest.mark.parametrize("row", HOSTILE.values(), ids=HOSTILE)
def test_a_graph_that_would_do_more_than_compute(path, row, capfd):
    refuses_to_load(rewrite(path, lambda h: h["model"]["graph"].insert(1, row)), "cannot load")
    assert capfd.readouterr().out == ""


def test_a_harmless_row_in_its_place_is_taken(path):
    x = torch.randn(2, 16, 5, 5)
    expected = lowbit.load_packed(path)(x)

    def add(header):
        header["model"]["graph"].insert(1, CALL)
        del header["digest"]

    rewrite(path, add)
    assert torch.equal(lowbit.load_packed(path)(x), expected)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("class", "subprocess.Popen"),
        ("class", "torch.nn.functional"),
        ("class", "lowbit.files._load.load_packed"),
        ("attributes", {"forward": {"function": "os.system"}}),
        ("attributes", {"forward": {"eval": "1"}}),
        ("attributes", {"forward": {"dtype": "load"}}),
    ],
)
def test_a_module_that_would_do_more_than_compute(path, key, value):
    def change(header):
        header["model"]["children"]["last"][key] = value

    refuses_to_load(rewrite(path, change), "this lowbit does not know")


def test_a_class_name_that_is_a_program(path):
    refuses_to_load(rewrite(path, lambda h: h["model"].update(name="A(print(1))")), "damaged")
    assert header_of(path)["model"]["name"] == "A(print(1))"


def test_config_and_metadata_are_mappings(path):
    refuses(rewrite(path, lambda h: h.update(config=None)), "damaged")
