"""What a command is given becomes the network that was trained."""

import pickle

import pytest
import torch
from safetensors.torch import save_file

import lowbit
from lowbit import models
from lowbit.cli._errors import UserError
from lowbit.cli._load import load
from lowbit.models import MLP
from lowbit.nn import latent_layers
from lowbit.qconfig import QConfig
from tests.cli.conftest import ARGUMENTS, describe, write

X = torch.linspace(-2, 2, 4 * 64).reshape(4, 1, 8, 8)


def same(found, expected):
    with torch.no_grad():
        return torch.equal(found(X), expected(X))


def test_a_checkpoint_that_says_what_it_is(checkpoint, model):
    loaded = load(str(checkpoint))
    assert same(loaded.model, model)
    assert not loaded.model.training
    assert (loaded.kind, loaded.shape) == ("trained", (1, 8, 8))
    assert loaded.description["experiment"] == "test"


WORDS = [f"{key}={value}" for key, value in ARGUMENTS.items()]


def test_bare_weights_with_the_name_of_their_model(tmp_path, model):
    torch.save(model.state_dict(), tmp_path / "a.pt")
    torch.save({"state_dict": model.state_dict()}, tmp_path / "b.pt")
    save_file(model.state_dict(), tmp_path / "c.safetensors")
    write(tmp_path / "d.ckpt", model, None)
    for path in sorted(tmp_path.iterdir()):
        loaded = load(str(path), "mlp", WORDS)
        assert same(loaded.model, model), path
        assert loaded.shape == (1, 8, 8)


def test_a_packed_file(tmp_path, model):
    packed = lowbit.convert(model).model
    path = lowbit.save_packed(packed, tmp_path / "p.safetensors", describe())
    loaded = load(str(path))
    assert same(loaded.model, packed)
    assert (loaded.kind, loaded.shape) == ("packed", (1, 8, 8))
    lowbit.save_packed(packed, path)
    assert load(str(path)).shape is None


def test_a_network_that_was_trained_for_int8(tmp_path):
    quantizers = {"": ["lsq", {"name": "int_k", "bits": 4}]}
    qconfigs = {name: QConfig(*pair) for name, pair in quantizers.items()}
    arguments = {"input_quantization": None, "weight_quantization": None}
    trained = lowbit.prepare_qat(MLP(**(ARGUMENTS | arguments)).train(), qconfigs)
    trained(X)
    description = describe(**arguments) | {"prepare_qat": quantizers}
    path = write(tmp_path / "qat.ckpt", trained.eval(), description)
    assert same(load(str(path)).model, trained)


def test_latent_weights_that_are_evaluated_themselves(tmp_path, model):
    path = write(tmp_path / "real.ckpt", model, describe() | {"weights": "real"})
    for _, layer in latent_layers(model):
        layer.weight_quantization = None
    assert same(load(str(path)).model, model)


def test_a_name_is_a_network_of_first_weights():
    loaded = load("ResNet18", words=["stem=imagenet", "width=8"])
    assert isinstance(loaded.model, models.ResNet18)
    assert (loaded.kind, loaded.shape) == ("name", (3, 224, 224))


def refusal(*arguments):
    with pytest.raises(UserError) as error:
        load(*map(str, arguments[:1]), *arguments[1:])
    return str(error.value)


def test_an_instruction_set_that_is_not_here_is_no_damaged_file(tmp_path, model, monkeypatch):
    path = lowbit.save_packed(lowbit.convert(model).model, tmp_path / "p.safetensors")
    monkeypatch.setenv("LOWBIT_ISA", "abacus")
    assert refusal(path).startswith("LOWBIT_ISA='abacus'")


class Code:
    def __reduce__(self):
        return print, ("run",)


def test_what_is_no_network(tmp_path, model, checkpoint, capsys):
    assert "does not exist" in refusal(tmp_path / "none.ckpt")
    assert "is a folder" in refusal(tmp_path)
    assert "no model named 'nonet'" in refusal("nonet")
    assert "no argument 'widht'" in refusal("ResNet18", None, ["widht=3"])
    assert "is itself a model" in refusal("ResNet18", "MLP")
    assert "MLP(hidden=3)" in refusal("MLP", None, ["hidden=3"])

    text = tmp_path / "text.ckpt"
    text.write_text("not a checkpoint")
    assert "cannot read" in refusal(text)
    text.write_bytes(checkpoint.read_bytes()[:2000])
    assert "cannot read" in refusal(text)
    text.write_bytes(b"")
    assert "cannot read" in refusal(text)
    torch.save([1, 2], text)
    assert "has no weights" in refusal(text)

    text.write_bytes(pickle.dumps(Code()))
    assert "could run code" in refusal(text)
    torch.save({"state_dict": Code()}, text)
    assert "could run code" in refusal(text)
    assert capsys.readouterr().out == ""

    bare = write(tmp_path / "bare.ckpt", model, None)
    assert "give --model" in refusal(bare)
    assert "another network" in refusal(bare, "LeNet")
    assert "another network" in refusal(checkpoint, None, ["hidden=[8, 8]"])
    other = write(tmp_path / "other.ckpt", model, describe("mine.Net"))
    assert "mine.Net" in refusal(other)
    other = write(tmp_path / "other.ckpt", model, describe("lowbit.models.os"))
    assert "lowbit.models.os" in refusal(other)
    other = write(tmp_path / "other.ckpt", model, {"model": 3})
    assert "damaged" in refusal(other)

    save_file({"a": torch.zeros(1)}, tmp_path / "a.safetensors")
    assert "a.safetensors" in refusal(tmp_path / "a.safetensors")
    assert "another network" in refusal(tmp_path / "a.safetensors", "MLP")


def test_a_config_of_ones_own_may_say_input_of_something_else(tmp_path, model):
    path = lowbit.save_packed(model, tmp_path / "own.safetensors", {"input": "28x28"})
    assert load(str(path)).shape is None


def test_a_damaged_description_is_a_message(tmp_path, model):
    path = tmp_path / "best.ckpt"
    description = {"model": {"target": "lowbit.models.MLP", "arguments": 5}}
    torch.save({"state_dict": model.state_dict(), "lowbit": description}, path)
    assert "description of the network is damaged" in refusal(str(path))
