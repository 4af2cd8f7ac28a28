"""Packed networks of the repository: each gives its figure again, and says how it was made."""

import json
import re
import shutil

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from torch import nn

import lowbit
from experiments import _pretrained
from experiments._app import CONFIGS, Problem
from experiments.eval import evaluate
from lowbit.files import packed_info
from tests.experiments.conftest import TINY

FOLDER = _pretrained.FOLDER
NAMES = _pretrained.names()
WIDE = "model.hidden=[128,96,128]"  # two layers that are worth packing


def run_eval(*overrides):
    with initialize_config_dir(version_base="1.3", config_dir=str(CONFIGS)):
        return evaluate(compose("eval", overrides=list(overrides)))


class Wrong(nn.Module):
    """Predicts none of the ten classes."""

    def forward(self, x):
        return torch.eye(11)[10].expand(len(x), 11)


@pytest.fixture
def kept(tiny, tmp_path, monkeypatch):
    """``kept(*overrides)``: train the tiny network, keep it as "tiny"; metrics of both steps."""
    monkeypatch.setattr(_pretrained, "FOLDER", tmp_path / "pretrained")

    def make(*overrides):
        metrics = tiny(WIDE, "trainer.max_epochs=2", "packed=false", *overrides)
        folder = tmp_path / "run"
        (folder / ".hydra").mkdir()
        with initialize_config_dir(version_base="1.3", config_dir=str(CONFIGS)):
            config = compose("train", overrides=[*TINY, WIDE, "name=test", *overrides])
        OmegaConf.save(config, folder / ".hydra" / "config.yaml")
        return metrics, run_eval(f"checkpoint={folder}/checkpoints/best.ckpt", "save=tiny")

    return make


def test_digits_gives_exactly_its_figure_again(capsys):
    found = run_eval("pretrained=digits_binary")
    assert found["test/correct"] == found["recorded/correct"]
    assert found["test/images"] == 540
    assert found["test/accuracy"] > 0.97
    said = capsys.readouterr().out
    assert "now and recorded: the same" in said
    assert re.search(r"recorded .*%.* of 540", said)


def test_a_kept_network_is_the_trained_one(kept, tmp_path, capsys):
    trained, evaluated = kept("published={value: 0.5, selection: best, source: a paper}")
    assert evaluated == {name: trained[name] for name in evaluated}
    shutil.rmtree(tmp_path / "run")
    found = run_eval("pretrained=tiny")
    assert found["test/accuracy"] == pytest.approx(trained["test/accuracy"])
    assert found["test/correct"] == found["recorded/correct"]
    said = capsys.readouterr().out
    assert "published: 50.00 % (best epoch on the test set), a paper" in said
    run_eval("pretrained=list")
    (row,) = [line for line in capsys.readouterr().out.splitlines() if "tiny" in line]
    assert "MLP" in row
    assert "synthetic" in row


def test_a_kept_network_that_changed_does_not_pass_for_the_recorded_one(
    kept, tmp_path, capsys, monkeypatch
):
    kept()
    monkeypatch.setattr(lowbit, "load_packed", lambda path: Wrong())
    found = run_eval("pretrained=tiny")
    assert found["recorded/correct"] > found["test/correct"] == 0
    assert "DIFFERENT by" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["pretrained=lost"], "no pretrained network named 'lost'; there are digits_binary"),
        (["pretrained=digits_binary", "packed=true"], "pretrained stands alone"),
        (["pretrained=digits_binary", "checkpoint=a.ckpt"], "pretrained stands alone"),
        (["pretrained=../digits_binary"], "no pretrained network named"),
    ],
)
def test_eval_refuses_what_is_not_there(overrides, message):
    with pytest.raises(Problem, match=re.escape(message)):
        run_eval(*overrides)


def test_what_cannot_be_kept_is_refused_and_leaves_no_file(kept, tmp_path, monkeypatch):
    with pytest.raises(Problem, match="nothing to pack: no layer has quantizers"):
        kept("quantizer=float")
    best = f"checkpoint={tmp_path}/run/checkpoints/best.ckpt"
    with pytest.raises(Problem, match=r"save=a/b: a name of letters"):
        run_eval(best, "save=a/b")
    with pytest.raises(Problem, match="save=tiny packs by itself"):
        run_eval(best, "save=tiny", "packed=true")
    (tmp_path / "run" / "result.json").unlink()
    with pytest.raises(Problem, match=r"has no result\.json"):
        run_eval(best, "save=tiny")
    assert not _pretrained.names()


def test_a_file_that_is_too_large_is_refused(kept, monkeypatch):
    monkeypatch.setattr(_pretrained, "LARGEST", 1000)
    with pytest.raises(Problem, match=r"when packed, more than the 1\.0 kB that the repository"):
        kept()
    assert not _pretrained.names()


@pytest.mark.parametrize("name", NAMES)
def test_every_kept_network_says_how_it_was_made(name):
    path = FOLDER / f"{name}.safetensors"
    assert path.stat().st_size <= _pretrained.LARGEST
    info = packed_info(path)
    assert info.metadata["dirty"] is False
    experiment = info.metadata["experiment"]
    assert info.config["experiment"] == experiment
    assert (CONFIGS / "experiment" / f"{experiment}.yaml").is_file()
    assert info.metadata["test"]["differing"] == 0
    text = json.dumps([info.config, info.metadata])
    assert not re.search(r'"/\w|[=:]/\w', text), "a folder of one machine"
    model = lowbit.load_packed(path)
    shape = info.config["input"]["shape"]
    assert model(torch.zeros(2, *shape)).shape == (2, 10)
