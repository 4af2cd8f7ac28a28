"""``lowbit bench`` and ``lowbit summary``."""

import json

import pytest
import torch

import lowbit
from lowbit.cli import bench
from lowbit.models import MLP
from tests.cli.conftest import ARGUMENTS, describe, write


@pytest.fixture(autouse=True)
def _threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_three_networks_take_turns_and_agree(run, checkpoint):
    words = ("--seconds", 0, "--batch", 8, 1)
    found = json.loads(run("bench", checkpoint, *words, "--json").out)
    assert [one["batch"] for one in found["speed"]] == [8, 1]
    for one in found["speed"]:
        assert list(one["images_per_second"]) == ["float", "trained", "packed"]
        assert one["ratio"] > 0
    assert (found["compared"], found["differing"]) == (8, 0)
    assert found["threads"] == 1
    text = run("bench", checkpoint, *words).out
    assert "8 of 8 inputs in the same class" in text
    assert "packed, times as fast" in text


def test_what_differs_is_counted(checkpoint, model):
    other = MLP(**ARGUMENTS).eval()
    x = torch.randn(16, 1, 8, 8)
    with torch.no_grad():
        expected = (model(x).argmax(1) != other(x).argmax(1)).sum()
        largest = (model(x) - other(x)).abs().max()
    found = bench._agreement({"trained": model, "packed": other}, x)
    assert found["differing"] == expected > 0
    assert found["largest_difference"] == largest


def test_a_name_and_threads(run):
    words = ["--set", "image_size=8", "hidden=[128,128]", *(f"{k}=sign" for k in QUANTIZERS)]
    found = json.loads(
        run("bench", "MLP", *words, "--threads", 2, "--seconds", 0, "--batch", 1, "--json").out
    )
    assert found["threads"] == 2


QUANTIZERS = ("input_quantization", "weight_quantization")


def test_a_packed_file_is_timed_alone(run, refused, tmp_path, model):
    packed = lowbit.convert(model).model
    path = lowbit.save_packed(packed, tmp_path / "p.safetensors", describe())
    found = json.loads(run("bench", path, "--seconds", 0, "--json").out)
    assert list(found["speed"][0]["images_per_second"]) == ["packed"]
    lowbit.save_packed(packed, path)
    assert "--input-shape" in refused("bench", path)
    shown = run("bench", path, "--seconds", 0, "--input-shape", "1x8x8")
    assert shown.code == 0
    assert "inputs/s" in shown.out
    assert "times as fast" not in shown.out


def test_a_network_trained_for_int8_has_a_float_twin(run, tmp_path):
    plain = {"input_quantization": None, "weight_quantization": None}
    trained = lowbit.prepare_qat(MLP(**(ARGUMENTS | plain)).train())
    trained(torch.randn(4, 1, 8, 8))
    specs = {"": [{"name": "int_k", "bits": 8, "range": "moving_average"}] * 2}
    qconfig = {"": lowbit.qconfig.QConfig(*specs[""])}
    trained = lowbit.prepare_qat(MLP(**(ARGUMENTS | plain)).train(), qconfig)
    trained(torch.randn(4, 1, 8, 8))
    path = write(tmp_path / "q.ckpt", trained.eval(), describe(**plain) | {"prepare_qat": specs})
    found = json.loads(run("bench", path, "--seconds", 0, "--json").out)
    assert list(found["speed"][0]["images_per_second"]) == ["float", "trained", "int8"]


def test_wrong_shapes_and_networks_that_do_not_convert(refused, checkpoint, tmp_path):
    assert "input 1x9x9: " in refused("bench", checkpoint, "--input-shape", "1x9x9")
    assert "no layer has quantizers" in refused("bench", "MLP", "--set", "hidden=[8,8]")


def test_the_summary_is_that_of_the_library(run, refused, checkpoint, model, tmp_path):
    expected = lowbit.summary(model, (1, 8, 8))
    assert run("summary", checkpoint).out == f"{expected}\n"
    found = json.loads(run("summary", checkpoint, "--json", "--csv", tmp_path / "s.csv").out)
    assert found["totals"]["parameters"] == expected.parameters
    assert (tmp_path / "s.csv").read_text() == expected.to_csv()
    assert "refused an input" in refused("summary", checkpoint, "--input-shape", "1x9x9")
    assert "cannot write" in refused("summary", checkpoint, "--csv", tmp_path / "no" / "s.csv")
    path = lowbit.save_packed(lowbit.convert(model).model, tmp_path / "p.safetensors")
    assert "--input-shape" in refused("summary", path)
