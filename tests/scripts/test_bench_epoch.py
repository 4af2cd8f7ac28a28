"""The benchmark of epochs: what it measures, and what its file says."""

import json
import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))
import bench_epoch as bench

TINY = ["--images", "500", "--epochs", "1", "--experiment", "mnist1d_binary", "--batch", "50"]
# A network for one channel of 8 x 8.
SMALL = ["trainer=cpu", "model=mlp", "model.hidden=[8]", "data.image_size=8", "data.in_channels=1"]


def test_a_file_says_what_was_measured_and_what_failed(tmp_path, monkeypatch, capsys):
    path = tmp_path / "out.json"
    given = [*TINY, "--modes", "eager,cuda_graph", "--output", str(path), "--", *SMALL]
    monkeypatch.setattr(sys, "argv", ["bench", *given])
    assert bench.main() == 1  # a graph needs a GPU
    found = json.loads(path.read_text())
    assert str(path) not in found["command"]
    assert found["command"].startswith("python scripts/bench_epoch.py --images 500")
    assert found["images"] == 450
    eager = found["modes"]["eager"]
    assert 0 < eager["training_s"] < eager["epoch_s"]
    assert "needs an NVIDIA GPU" in found["modes"]["cuda_graph"]["error"]
    assert "needs an NVIDIA GPU" in capsys.readouterr().out


@pytest.mark.skipif(torch.cuda.is_available(), reason="where there is no GPU")
def test_it_says_that_it_needs_a_gpu(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["bench"])
    with pytest.raises(SystemExit):
        bench.main()
    assert "torch finds no GPU here" in capsys.readouterr().err


def test_another_mode_is_refused(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["bench", "--modes", "fast"])
    with pytest.raises(SystemExit):
        bench.main()
    assert "no mode fast; there are eager, compile" in capsys.readouterr().err
