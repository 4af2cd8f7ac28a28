"""scripts/compare_onnx.py, on a small network that nobody trained."""

import importlib.util
import json
from pathlib import Path

import pytest
import torch

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("hydra")

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "compare_onnx.py"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("compare_onnx", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_it_compares_the_whole_test_set_and_says_what_differs(script, tmp_path):
    from hydra import compose, initialize_config_dir
    from omegaconf import OmegaConf

    from experiments import _build

    folder = tmp_path / "run"
    (folder / ".hydra").mkdir(parents=True)
    overrides = ["~experiment", "quantizer=float", "model=vgg_small", "data=synthetic"]
    with initialize_config_dir(str(SCRIPT.parents[1] / "configs"), version_base="1.3"):
        config = compose("train", overrides=[*overrides, "model.width=4", "model.order=bn_pool"])
    OmegaConf.save(config, folder / ".hydra" / "config.yaml")
    _, recipe = _build.prepare(config)
    checkpoint = folder / "checkpoints" / "best.ckpt"
    checkpoint.parent.mkdir()
    torch.save({"state_dict": recipe.state_dict()}, checkpoint)
    output = tmp_path / "out" / "compared.json"
    model = tmp_path / "model.onnx"
    arguments = [str(checkpoint), "--calibration", "64", "--output", str(output)]
    found = script.main([*arguments, "--onnx", str(model)])
    assert json.loads(output.read_text()) == json.loads(json.dumps(found))
    assert model.is_file()
    assert found["agreement"]["int8_integer_biases"] >= 0.99
    assert len(found["differing"]) == round((1 - found["agreement"]["int8"]) * found["images"])
    assert found["kernels"]["QLinearConv"] == 6


def test_a_row_for_each_image_whose_answers_differ(script):
    labels = torch.tensor([1, 0, 2])
    int8 = torch.tensor([[1.0, 3.0, 2.0], [0.0, 0.1, 0.0], [0.0, 0.0, 1.0]])
    other = torch.tensor([[1.0, 3.5, 2.0], [0.4, 0.1, 0.0], [0.0, 0.0, 1.0]])
    (row,) = script.differing(10, labels, {"int8": int8, "onnxruntime": other})
    assert (row["image"], row["label"], row["int8"], row["onnxruntime"]) == (11, 0, 1, 0)
    assert row["margin_int8"] == pytest.approx(0.1)
    assert row["margin_onnxruntime"] == pytest.approx(0.3)
    assert row["largest_difference"] == pytest.approx(0.4)
