"""The benchmark of training on a GPU: what it chooses, checks and leaves out."""

import json
import sys
import time
from pathlib import Path

import pytest
import torch

SCRIPTS = str(Path(__file__).parents[2] / "scripts")
sys.path.insert(0, SCRIPTS)
import bench_training_gpu as bench  # noqa: E402
from _bench.training_steps import take_turns  # noqa: E402

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _settings_of_torch():
    precision, tries = torch.get_float32_matmul_precision(), torch.backends.cudnn.benchmark
    yield
    torch.set_float32_matmul_precision(precision)
    torch.backends.cudnn.benchmark = tries


def test_cells_are_chosen_by_whole_parts_of_their_names():
    chosen = bench.groups(["resnet18/bf16", "compile"])
    assert [(g.network, g.batch, g.modes) for g in chosen] == [("resnet18", 128, ("compile",))]
    assert sum(len(g.modes) for g in bench.groups([])) == 4 * 2 * (4 + 2)
    assert bench.groups([])[0].batch == 128


def test_what_takes_four_times_as_long_has_a_ratio_of_a_quarter():
    steps = {"binary": lambda: time.sleep(0.004), "float": lambda: time.sleep(0.001)}
    assert 0.2 < take_turns(steps, False, rounds=3)["ratio"] < 0.4


def test_the_twins_are_one_network_but_for_the_quantizers():
    twins = bench.Twins(bench.groups(["vgg_small"])[0], CPU)
    assert twins.start["binary"].keys() == twins.start["float"].keys()
    for name, value in twins.start["binary"].items():
        torch.testing.assert_close(value, twins.start["float"][name], msg=name)
    assert not any(isinstance(m, bench.lowbit.nn.QConv2d) for m in twins.models["float"].modules())


def test_a_loss_that_is_not_that_of_the_other_modes_is_no_figure():
    group = bench.groups(["vgg_small/float32/128"])[0]
    with pytest.raises(AssertionError, match=r"binary: the first loss is .*, where it was 9"):
        bench.measure(group, "eager", bench.Twins(group, CPU), {"binary": 9.0})


def test_a_file_says_what_was_measured_and_what_was_not(tmp_path, monkeypatch):
    path = tmp_path / "out.json"
    given = ["--device", "cpu", "--only", "vgg_small/bf16/256", "--output", str(path)]
    monkeypatch.setattr(sys, "argv", ["bench", *given])
    assert bench.main() == 0
    found = json.loads(path.read_text())
    cell = found["cells"]["vgg_small/bf16/256/eager"]
    assert cell["ratio"] > 0
    assert cell["loss"]["binary"]["last"] < cell["loss"]["binary"]["first"]
    assert cell["kept_bytes"]["binary"] <= cell["kept_bytes"]["float"]
    assert found["not_measured"] == {"vgg_small/bf16/256/graph": "CUDA graphs need a GPU"}


def test_no_cell_is_begun_after_the_time(tmp_path, monkeypatch):
    path = tmp_path / "out.json"
    given = ["--device", "cpu", "--only", "eager", "--seconds", "0", "--output", str(path)]
    monkeypatch.setattr(sys, "argv", ["bench", *given])
    assert bench.main() == 0
    found = json.loads(path.read_text())
    assert found["cells"] == {}
    assert len(found["not_measured"]) == 16


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_captured_step_trains_as_the_step_does():
    group = bench.groups(["resnet20/bf16/128"])[0]
    with torch.cuda.stream(torch.cuda.Stream()):
        twins, firsts = bench.Twins(group, torch.device("cuda")), {}
        for mode in ("eager", "graph"):
            cell = bench.measure(group, mode, twins, firsts)
            assert cell["loss"]["binary"]["last"] < cell["loss"]["binary"]["first"]
