"""The packed model beside the trained one: at the end of a training, and in eval."""

import json
import math
import re

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from torch import nn

from experiments import _packed
from experiments._app import CONFIGS, Problem
from experiments._report import packed_line
from experiments.eval import evaluate
from experiments.results import table
from tests.experiments.conftest import TINY

WIDE = "model.hidden=[128,96,128]"  # two layers that are worth packing


@pytest.fixture
def result(tmp_path):
    return lambda: json.loads((tmp_path / "run" / "result.json").read_text())


@pytest.fixture
def packed_eval(tmp_path):
    """``packed_eval(*overrides)``: eval of the best weights that the tiny network left."""

    def run(*overrides):
        folder = tmp_path / "run"
        (folder / ".hydra").mkdir(exist_ok=True)
        with initialize_config_dir(version_base="1.3", config_dir=str(CONFIGS)):
            config = compose("train", overrides=[*TINY, WIDE])
            OmegaConf.save(config, folder / ".hydra" / "config.yaml")
            best = f"checkpoint={folder}/checkpoints/best.ckpt"
            return evaluate(compose("eval", overrides=[best, *overrides]))

    return run


@pytest.fixture(autouse=True)
def _short_timings(monkeypatch):
    monkeypatch.setattr(_packed, "AT_THE_END", (0.0, math.inf))
    monkeypatch.setattr("experiments.eval.SECONDS", 0.0)


def test_a_training_ends_with_its_packed_model(tiny, result, capsys):
    metrics = tiny(WIDE, "trainer.max_epochs=2")
    packed = result()["packed"]
    assert (packed["images"], packed["test_images"], packed["differing"]) == (32, 32, 0)
    assert packed["correct"] == packed["correct_packed"] == round(32 * metrics["test/accuracy"])
    assert (packed["layers"], packed["layers_packed"]) == (2, 2)
    # Weights of 32 bits become 1, in whole words of 64 inputs.
    saved = packed["bytes"] - packed["bytes_packed"]
    assert saved > 4 * 2 * 128 * 96 - (96 * 128 + 128 * 128) / 8 - 5000
    assert [speed["batch"] for speed in packed["speed"]] == [16, 1]
    said = capsys.readouterr().out
    assert "packed: 32 of 32 test images predicted the same" in said
    (size,) = [line for line in said.splitlines() if "size when packed" in line]
    assert f"{packed['bytes_packed'] / 1000:.1f} kB" in size


@pytest.mark.parametrize(
    ("override", "why"),
    [
        ("quantizer=float", "no layer has quantizers"),
        ("model.hidden=[16,16]", "nothing packs of .*: float is faster: 16 products"),
    ],
)
def test_where_nothing_packs_one_line_says_why(override, why, tiny, result, capsys):
    tiny(WIDE, override, "debug=quick")
    assert set(result()["packed"]) == {"why"}
    assert re.search(why, result()["packed"]["why"])
    assert result()["packed"]["why"] in capsys.readouterr().out


def test_packed_false_leaves_it_out(tiny, result, capsys):
    tiny(WIDE, "packed=false", "debug=quick")
    assert "packed" not in result()
    assert "packed:" not in capsys.readouterr().out


def test_a_failure_to_convert_keeps_the_result_and_is_said(tiny, result, capsys, monkeypatch):
    def broken(*arguments, **options):
        raise RuntimeError("no such thing\nat line 1")

    monkeypatch.setattr("lowbit.convert", broken)
    metrics = tiny(WIDE, "debug=quick")
    assert result()["metrics"] == metrics
    assert result()["packed"]["error"].startswith("failed, RuntimeError: no such thing; all of it:")
    assert "packed: failed, RuntimeError: no such thing" in capsys.readouterr().out


def test_the_result_is_written_before_the_model_is_converted(tiny, result, monkeypatch):
    def killed(*arguments, **options):
        assert result()["metrics"]
        raise KeyboardInterrupt

    monkeypatch.setattr("lowbit.convert", killed)
    with pytest.raises(KeyboardInterrupt):
        tiny(WIDE, "debug=quick")
    assert "packed" not in result()


def test_eval_compares_on_the_whole_test_set_and_writes_it_down(
    tiny, packed_eval, result, tmp_path, capsys
):
    metrics = tiny(WIDE, "trainer.max_epochs=2")
    before = sorted(tmp_path.rglob("*"))
    capsys.readouterr()
    found = packed_eval("packed=true", f"output={tmp_path}/out/packed/x.json")
    assert found.pop("packed/differing") == 0
    assert found.pop("packed/accuracy") == pytest.approx(metrics["test/accuracy"])
    assert found == {name: metrics[name] for name in found}
    said = capsys.readouterr().out
    assert "0 of 32" in said
    assert "2 of 2 quantized layers packed" in said
    file = tmp_path / "out" / "packed" / "x.json"
    written = json.loads(file.read_text())
    assert (written["experiment"], written["trained"]["seed"]) == ("test", 0)
    assert written["metrics"] == found
    assert written["packed"]["differing"] == 0
    assert [row["packed"] for row in written["report"]["layers"]] == [True, True]
    assert written["packed"]["bytes_packed"] == written["report"]["bytes_after"]
    (row,) = [line for line in table(tmp_path / "out").splitlines() if line.startswith("| test,")]
    assert "| 0 of 32 |" in row
    (file.parent / "nothing.json").write_text('{"packed": null}')
    assert row in table(tmp_path / "out")
    (file.parent / "nothing.json").unlink()
    after = {path for path in tmp_path.rglob("*") if ".hydra" not in path.parts}
    assert after - set(before) == {file, file.parent, file.parent.parent}


def test_a_long_report_is_printed_on_request(tiny, packed_eval, capsys, monkeypatch):
    monkeypatch.setattr("experiments._packed_report.SHORT", 1)
    tiny(WIDE, "debug=quick")
    for packed, shown in (("true", False), ("report", True)):
        capsys.readouterr()
        packed_eval(f"packed={packed}")
        said = capsys.readouterr().out
        assert ("quantized layers packed" in said) is shown
        assert ("packed=report" in said) is not shown


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["packed=maybe"], "packed is true, false or report; got 'maybe'"),
        (["output=x.json"], "output=x.json is of packed=true or int8="),
        (["packed=true", "output=/dev/null/x.json"], "/dev/null is a file, and no folder"),
        (["packed=true", "output=/"], "output=/: it is a folder"),
        (["packed=true", "trainer=ddp"], "in one process"),
    ],
)
def test_eval_refuses_what_it_cannot_do(overrides, message, tiny, packed_eval):
    tiny(WIDE, "packed=false", "debug=quick")
    with pytest.raises(Problem, match=message):
        packed_eval(*overrides)


class Scores(nn.Module):
    """Returns rows of a table by the first pixel of each image."""

    def __init__(self, table):
        super().__init__()
        self.table = torch.tensor(table)

    def forward(self, x):
        return self.table[x[:, 0].long()]


NAN, INF = math.nan, math.inf


def test_agreement_counts_predictions_and_measures_scores():
    trained = Scores([[1.0, 0.0], [0.0, 2.0], [3.0, 0.0], [NAN, 0.0], [INF, 0.0]])
    packed = Scores([[1.0, 0.5], [2.25, 2.0], [3.0, 0.0], [NAN, 0.0], [INF, 0.0]])
    images, labels = torch.arange(5.0)[:, None], torch.tensor([0, 1, 1, 0, 0])
    batches = [(images[:2], labels[:2]), (images[2:], labels[2:])]
    assert _packed.agreement(trained, packed, batches) == {
        "images": 5,
        "correct": 4,
        "correct_packed": 3,
        "differing": 1,
        "largest_difference": 2.25,
    }
    assert _packed.agreement(trained, packed, batches, patience=0.0)["images"] == 2


def test_a_score_that_is_nan_on_one_side_is_as_far_off_as_can_be():
    batches = [(torch.zeros(1, 1), torch.zeros(1))]
    for pair in ([[NAN, 0.0]], [[1.0, 0.0]]), ([[1.0, 0.0]], [[NAN, 0.0]]):
        found = _packed.agreement(Scores(pair[0]), Scores(pair[1]), batches)
        assert found["largest_difference"] == INF


def test_the_line_says_what_was_not_compared_and_what_did_not_pack():
    speed = [{"batch": 64, "ratio": 2.04, "ratio_float": 1.5}]
    packed = {"images": 640, "test_images": 10000, "differing": 1, "threads": 2, "speed": speed}
    packed |= {"bytes": 2_000_000, "bytes_packed": 90_000, "layers": 3, "layers_packed": 2}
    packed["kernel"] = "avx2"
    assert packed_line(packed) == (
        "2 of 3 layers, 639 of 640 test images (of 10,000) predicted the same, 90.0 kB instead of "
        "2.00 MB, 2.0 times the images per second, 1.5 times the float twin's "
        "(batch 64, 2 threads, avx2)"
    )
