"""The int8 model beside the trained one: at the end of a training, and in eval."""

import json
import math
import re
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from torch import nn

from experiments import _build, _checkpoint, _int8
from experiments._app import CONFIGS, Problem
from experiments._report import int8_line
from experiments.eval import evaluate
from experiments.results import table
from experiments.train import train
from lowbit.nn.qat import ConvBn2d
from tests.experiments.conftest import TINY

FLOAT = ("model=vgg_small", "model.width=8", "model.order=bn_pool", "quantizer=float")
QAT = (*FLOAT[:-1], "quantizer=int8", "recipe=quantization_aware", "int8=qat", "packed=false")
# Without the hidden layers of the tiny network, which VGGSmall has none of.
BASE = tuple(word for word in TINY if not word.startswith("model."))


@pytest.fixture
def run(config, tmp_path):
    """``run(*overrides, folder=…)``: train on the tiny images; the result, and its .hydra."""

    def trained(*overrides, folder="run"):
        cfg = config(*BASE, *overrides, folder=tmp_path / folder)
        train(cfg)
        (tmp_path / folder / ".hydra").mkdir()
        OmegaConf.save(cfg, tmp_path / folder / ".hydra" / "config.yaml")
        return json.loads((tmp_path / folder / "result.json").read_text())

    return trained


@pytest.fixture
def int8_eval(tmp_path):
    """``int8_eval(*overrides, folder=…)``: eval of the best weights of that run."""

    def evaluated(*overrides, folder="run"):
        best = f"checkpoint={tmp_path}/{folder}/checkpoints/best.ckpt"
        with initialize_config_dir(version_base="1.3", config_dir=str(CONFIGS)):
            return evaluate(compose("eval", overrides=[best, *overrides]))

    return evaluated


@pytest.fixture(autouse=True)
def _short_timings(monkeypatch):
    monkeypatch.setattr(_int8, "AT_THE_END", (0.0, math.inf))
    monkeypatch.setattr("experiments.eval.SECONDS", 0.0)


def test_a_float_training_ends_with_static_int8_of_it(run, capsys):
    result = run(*FLOAT, "int8=static", "packed=false", "trainer.max_epochs=2", "calibration=40")
    int8 = result["int8"]
    assert (int8["mode"], int8["calibration"], int8["images"]) == ("static", 40, 32)
    assert int8["correct"] == round(32 * result["metrics"]["test/accuracy"])
    assert int8["differing"] <= 3
    assert 3 * int8["bytes_int8"] < int8["bytes"]
    assert [speed["batch"] for speed in int8["speed"]] == [16, 1]
    assert "int8: static, " in capsys.readouterr().out


def test_eval_of_static_int8_writes_a_record_and_a_row(run, int8_eval, tmp_path, capsys):
    metrics = run(*FLOAT, "trainer.max_epochs=2")["metrics"]
    found = int8_eval("int8=static", f"output={tmp_path}/out/int8/x.json")
    assert found["test/accuracy"] == metrics["test/accuracy"]
    assert found["int8/accuracy"] == pytest.approx(metrics["test/accuracy"], abs=0.1)
    assert "7 of 7 layers in int8" in capsys.readouterr().out
    record = json.loads((tmp_path / "out" / "int8" / "x.json").read_text())
    assert record["int8"]["differing"] == found["int8/differing"]
    assert (record["experiment"], record["trained"]["epochs"]) == ("test", 2)
    assert len(record["report"]["layers"]) == 7
    assert "| test, seed 0 | " in table(tmp_path / "out")


def test_a_binary_network_goes_to_bits_and_int8_beside_its_float_twin(run, int8_eval, capsys):
    words = ("model=mlp", "model.hidden=[256,256]", "quantizer=binary", "int8=static")
    int8 = run(*words, "packed=false", "debug=quick")["int8"]
    assert 3 * int8["bytes_int8"] < int8["bytes"]
    int8_eval("int8=static")
    said = capsys.readouterr().out
    assert re.search(r"layers.4 +QLinear +\w+ +1x1", said), said
    assert re.search(r"layers.7 +Linear +\w+ +8x8", said), said


def test_dynamic_int8_needs_no_data(run):
    words = ("model=row_lstm", "model.hidden=16", "quantizer=float", "int8=dynamic")
    int8 = run(*words, "packed=false", "debug=quick")["int8"]
    assert int8["images"] == 32
    assert "calibration" not in int8
    assert int8["bytes_int8"] < int8["bytes"]


def test_what_trained_for_int8_becomes_it(run, int8_eval, tmp_path):
    run(*FLOAT, "trainer.max_epochs=2", folder="float")
    start = f"{tmp_path}/float/checkpoints/best.ckpt"
    four = "{name:int_k,bits:4,per_channel:true}"
    result = run(
        *QAT, f"start={start}", f"quantizer.weight={four}", "trainer.max_epochs=2", "packed=true"
    )
    assert result["int8"]["images"] == 32
    assert result["int8"]["differing"] <= 3
    assert "packed" not in result
    found = int8_eval("int8=qat", f"output={tmp_path}/out/int8/qat.json")
    assert found["test/accuracy"] == result["metrics"]["test/accuracy"]
    int8_eval("int8=static", f"output={tmp_path}/out/int8/static.json", folder="float")
    record = json.loads((tmp_path / "out" / "int8" / "qat.json").read_text())
    assert record["bits"] == {"weight": 4, "input": 8}
    assert record["quantizer"]["weight"] == {"name": "int_k", "bits": 4, "per_channel": True}
    static = json.loads((tmp_path / "out" / "int8" / "static.json").read_text())["int8"]
    (row,) = [line for line in table(tmp_path / "out").splitlines() if "4, 8 bits" in line]
    assert f"| {100 * static['correct'] / 32:.2f} / " in row
    (tmp_path / "out" / "int8" / "static.json").unlink()
    assert "| – / " in table(tmp_path / "out")


def test_a_training_starts_with_the_weights_of_a_checkpoint(run, config, tmp_path):
    run(*FLOAT, "debug=quick", folder="float")
    start = f"{tmp_path}/float/checkpoints/best.ckpt"
    saved = _checkpoint.read(start)["state_dict"]
    for words in (FLOAT, QAT):
        _, recipe = _build.prepare(config(*BASE, *words, f"start={start}"))
        found = recipe.model.get_submodule("features.3").weight
        assert torch.equal(found, saved["model.features.3.weight"])
    with pytest.raises(Problem, match=r"start: the checkpoint .* is of another model"):
        _build.prepare(config(*BASE, *FLOAT, "model.width=16", f"start={start}"))


@pytest.mark.parametrize(("freeze", "steps"), [(0.5, 2), (0, 0), (1, 4)])
def test_norms_and_ranges_stay_after_their_share_of_the_training(freeze, steps, config):
    """Four steps: so many of them move the statistics."""
    cfg = config(*BASE, *QAT, f"recipe.freeze={freeze}", "trainer.max_epochs=1")
    run = _build.build(cfg, Path(cfg.folder))
    run.trainer.fit(run.recipe, run.data)
    norms = [m.bn for m in run.recipe.model.modules() if isinstance(m, ConvBn2d)]
    assert len(norms) == 6
    assert {int(norm.num_batches_tracked) for norm in norms} == {steps}
    enabled = [m.observer_enabled.item() for m in run.recipe.modules() if hasattr(m, "ch_axis")]
    assert set(enabled) == {int(freeze == 1)}


def test_the_ends_have_bits_of_their_own(config):
    two = "quantizer.weight={name:int_k,bits:2}"
    for ends, expected in (("8", {8}), ("null", {2})):
        _, recipe = _build.prepare(config(*BASE, *QAT, two, f"recipe.ends={ends}"))
        layers = [m for m in recipe.model.modules() if hasattr(m, "weight_fake_quant")]
        bits = [layer.weight_fake_quant.bits for layer in layers]
        assert {bits[0], bits[-1]} == expected
        assert set(bits[1:-1]) == {2}


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["int8=true"], "int8 is static, dynamic, qat or null; got True"),
        (["int8=static", "calibration=0"], "calibration is a whole number of at least 1; got 0"),
        (["int8=static", "qconfig=arm"], "qconfig: no backend 'arm'; known: x86"),
        (["int8=qat"], "int8=qat: a model of .*Classify becomes int8 by int8=static"),
        (
            ["recipe=quantization_aware", "quantizer=int8", "int8=static"],
            "becomes int8 by int8=qat",
        ),
        (["recipe=quantization_aware"], "needs quantizer.input"),
        (["recipe=quantization_aware", "quantizer=int8", "recipe.freeze=2"], "0 to 1; got 2"),
        (["start=absent.ckpt"], "no checkpoint at absent.ckpt"),
    ],
)
def test_the_message_names_the_value_and_the_way_out(overrides, message, config):
    with pytest.raises(Problem, match=message):
        train(config(*BASE, *FLOAT, *overrides))


def test_quantizers_for_a_model_that_takes_none_are_refused(config):
    with pytest.raises(Problem, match="takes no input_quantization; give quantizer=float"):
        train(config(*BASE, "model=row_lstm"))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["int8=qat"], "becomes int8 by int8=static or dynamic"),
        (["int8=static", "packed=true"], "packed=True and int8=static: one at a time"),
        (["int8=static", "trainer=ddp"], "in one process"),
    ],
)
def test_eval_refuses_what_it_cannot_do(overrides, message, run, int8_eval):
    run(*FLOAT, "packed=false", "debug=quick")
    with pytest.raises(Problem, match=message):
        int8_eval(*overrides)


def test_a_failure_to_convert_keeps_the_result_and_is_said(run, capsys, monkeypatch):
    def broken(*arguments, **options):
        raise RuntimeError("no such thing\nat line 1")

    monkeypatch.setattr("lowbit.prepare", broken)
    result = run(*FLOAT, "int8=static", "debug=quick")
    assert result["int8"]["error"].startswith("failed, RuntimeError: no such thing; all of it:")
    assert int8_line(result["int8"]) in capsys.readouterr().out


def test_ranges_are_those_of_the_calibration_images(config):
    """More images, wider ranges; and no batch norm follows them."""
    cfg = config(*BASE, *FLOAT)
    data, recipe = _build.prepare(cfg)
    data.setup("test")
    before = [b.clone() for b in recipe.model.buffers()]
    scales = []
    for images in (1, 64):
        cfg.calibration, cfg.int8 = images, "static"
        model, _ = _int8.converted(recipe.model, data, cfg)
        scales.append(model.get_submodule("features.17").scale)
    assert scales[0] < scales[1]
    assert all(torch.equal(a, b) for a, b in zip(before, recipe.model.buffers(), strict=True))
    assert isinstance(recipe.model.features[1], nn.BatchNorm2d)
