"""``lowbit convert``: the file is the network that ``lowbit.convert`` makes."""

import json

import pytest
import torch

import lowbit
from lowbit.cli import convert as command
from lowbit.files import packed_info
from lowbit.models import MLP, LeNet
from tests.cli.conftest import ARGUMENTS, describe, write

X = torch.linspace(-2, 2, 4 * 64).reshape(4, 1, 8, 8)
FLOAT = {"input_quantization": None, "weight_quantization": None}


def scores(model):
    with torch.no_grad():
        return model(X)


def test_the_file_lies_beside_the_checkpoint_and_is_the_packed_network(run, checkpoint, model):
    ended = run("convert", checkpoint)
    assert ended.code == 0
    file = checkpoint.with_suffix(".safetensors")
    packed, report = lowbit.convert(model)
    assert torch.equal(scores(lowbit.load_packed(file)), scores(packed))
    assert str(report) in ended.out
    assert f"{file}: {file.stat().st_size:,} bytes" in ended.out
    assert packed_info(file).config == describe() | {"converted": "packed"}


def test_json_has_a_row_for_each_layer(run, checkpoint, tmp_path):
    file = tmp_path / "other.safetensors"
    found = json.loads(run("convert", checkpoint, "-o", file, "--json").out)
    assert (found["file"], found["to"]) == (str(file), "packed")
    assert found["bytes"] == file.stat().st_size
    assert [(row["kind"], row["packed"]) for row in found["layers"]] == [("QLinear", True)]
    assert found["largest_difference"] < 1e-4


def test_dynamic_int8(run, tmp_path):
    network = MLP(**(ARGUMENTS | FLOAT)).eval()
    path = write(tmp_path / "float.ckpt", network, describe(**FLOAT))
    ended = run("convert", path, "--to", "dynamic")
    assert ended.code == 0
    loaded = lowbit.load_packed(path.with_suffix(".safetensors"))
    assert torch.equal(scores(loaded), scores(lowbit.quantize_dynamic(network)))
    assert ended.out.count("  Linear") == 3


def test_int8_from_pictures(run, refused, tmp_path):
    pil = pytest.importorskip("PIL.Image")
    torch.manual_seed(0)
    network = LeNet(image_size=8, kernel_size=3, padding=1, channels=(8, 16), features=32).eval()
    arguments = {"image_size": 8, "kernel_size": 3, "padding": 1, "channels": [8, 16]}
    description = describe() | {
        "model": {"target": "lowbit.models.LeNet", "arguments": {**arguments, "features": 32}}
    }
    path = write(tmp_path / "float.ckpt", network, description)
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    pixels = torch.randint(0, 256, (5, 8, 8), dtype=torch.uint8)
    for number, picture in enumerate(pixels):
        image = pil.frombytes("L", (8, 8), bytes(picture.flatten().tolist()))
        image.save(pictures / f"{number}.png")
    assert "--calibrate FOLDER" in refused("convert", path, "--to", "int8")
    assert run("convert", path, "--to", "int8", "--calibrate", pictures).code == 0
    prepared = lowbit.prepare(network)
    with torch.no_grad():
        prepared((pixels[:, None] / 255 - 0.25) / 0.5)
    expected = lowbit.convert(prepared, to="int8").model
    loaded = lowbit.load_packed(path.with_suffix(".safetensors"))
    assert torch.equal(scores(loaded), scores(expected))


def test_a_network_trained_for_int8_becomes_int8(run, refused, tmp_path):
    quantizers = {"": ["lsq", {"name": "int_k", "bits": 4}]}
    qconfig = {name: lowbit.qconfig.QConfig(*pair) for name, pair in quantizers.items()}
    trained = lowbit.prepare_qat(MLP(**(ARGUMENTS | FLOAT)).train(), qconfig)
    trained(X)
    description = describe(**FLOAT) | {"prepare_qat": quantizers}
    path = write(tmp_path / "qat.ckpt", trained.eval(), description)
    ended = run("convert", path)
    assert ended.code == 0
    assert "3 of 3 layers in int8" in ended.out
    assert "--to int8, not dynamic" in refused("convert", path, "--to", "dynamic")


def test_what_cannot_be_converted(refused, run, checkpoint, tmp_path):
    path = write(tmp_path / "float.ckpt", MLP(**(ARGUMENTS | FLOAT)), describe(**FLOAT))
    assert "no layer has quantizers" in refused("convert", path)
    assert not path.with_suffix(".safetensors").exists()
    assert "is what is converted" in refused("convert", checkpoint, "-o", checkpoint)
    assert "give -o FILE" in refused("convert", "LeNet")
    assert "--calibrate is of --to int8" in refused("convert", checkpoint, "--calibrate", tmp_path)
    assert "no folder" in refused("convert", checkpoint, "-o", tmp_path / "none" / "x.safetensors")
    run("convert", checkpoint)
    packed = checkpoint.with_suffix(".safetensors")
    out = tmp_path / "again.safetensors"
    assert "converted already" in refused("convert", packed, "-o", out)


def test_a_file_that_reads_back_wrong_is_not_kept(refused, checkpoint, monkeypatch):
    monkeypatch.setattr(command.lowbit, "load_packed", lambda path: lambda x: x)
    assert "removed" in refused("convert", checkpoint)
    assert not checkpoint.with_suffix(".safetensors").exists()
