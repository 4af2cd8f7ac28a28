"""What a run leaves, and how runs are gathered."""

import copy
import json
import subprocess
import sys

import pytest
import torch
from torch import nn

from experiments import provenance, results
from experiments._app import CONFIGS
from experiments._report import show_sweep, sizes, sweep_results
from experiments.eval import evaluate
from experiments.provenance import source
from lowbit.nn import QLinear

RESULT = {
    "experiment": "first",
    "overrides": ["experiment=first", "seed=0"],
    "seed": 0,
    "commit": "c" * 40,
    "dirty": False,
    "torch": "2",
    "lowbit": "0",
    "device": "a processor",
    "processes": 1,
    "threads": 1,
    "metrics": {"test/accuracy": 0.98, "test/accuracy_last": 0.97},
    "seconds": 12.0,
    "epochs": 3,
    "parameters": 10,
    "bytes": 40,
    "bytes_packed": 4,
    "published": {"value": 0.99, "selection": "best", "source": "a paper"},
    "finished": "2026-01-01T00:00:00+00:00",
}


def run(folder, **changes):
    result = {**copy.deepcopy(RESULT), **changes}
    folder.mkdir(parents=True)
    results.write_result(folder, result)
    return folder


def test_result_json_says_what_ran_and_what_came_out(tiny, tmp_path):
    metrics = tiny("trainer.max_epochs=2", "seed=4", "published={value: 0.5, selection: last}")
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["experiment"] == "test"
    assert result["seed"] == 4
    assert result["epochs"] == 2
    assert result["metrics"] == metrics
    assert set(metrics) >= {
        f"{stage}/{name}{which}"
        for stage in ("val", "test")
        for name in ("accuracy", "loss")
        for which in ("", "_last")
    }
    assert result["published"] == {"value": 0.5, "selection": "last"}
    assert result["torch"] == torch.__version__
    assert result["device"]
    assert result["seconds"] > 0
    for name in ("commit", "dirty", "command", "overrides", "finished", "threads", "lowbit"):
        assert name in result
    assert not list((tmp_path / "run").glob(".*.*"))


def test_a_sweeps_table_has_what_differs_between_its_jobs(tmp_path, capsys):
    for number, (beta, accuracy) in enumerate([("1", 0.5), ("2", 0.75)]):
        job = run(
            tmp_path / str(number),
            overrides=["model=mlp", f"quantizer.input={{name:swish_sign,beta:{beta}}}"],
            metrics={"test/accuracy": accuracy, "test/accuracy_last": 0.25},
        )
        (job / ".hydra").mkdir()
        (job / ".hydra" / "hydra.yaml").write_text(f"hydra: {{job: {{num: {number}}}}}")
    show_sweep(sweep_results(tmp_path), tmp_path)
    said = capsys.readouterr().out
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in said.splitlines()]
    assert [row for row in rows if row] == [
        ["{name:swish_sign,beta:1}", "50.00 %", "25.00 %", "12.0"],
        ["{name:swish_sign,beta:2}", "75.00 %", "25.00 %", "12.0"],
    ]
    assert "model" not in said
    assert sweep_results(tmp_path, since=2e10) == []


def test_a_sweeps_table_ends_with_mean_and_spread_over_the_seeds(tmp_path, capsys):
    def job(optimizer, seed, accuracy):
        return {
            "overrides": [f"callbacks=[{optimizer},x]", f"seed={seed}"],
            "metrics": {"test/accuracy": accuracy, "test/accuracy_last": 0.25},
            "seconds": 10.0 + seed,
        }

    show_sweep([job("a", 0, 0.5), job("a", 1, 0.6), job("b", 0, 0.7)], tmp_path)
    rows = [
        [cell.strip() for cell in line.split("│")[1:-1]]
        for line in capsys.readouterr().out.splitlines()
    ]
    # The standard deviation of 0.5 and 0.6 is 0.0707.
    assert [row for row in rows if row][3:] == [
        ["[a,x]", "n = 2", "55.00 ± 7.07 %", "25.00 ± 0.00 %", "10.5"],
        ["[b,x]", "n = 1", "70.00 %", "25.00 %", "10.0"],
    ]


def test_a_new_file_that_trains_makes_a_run_dirty(tmp_path, monkeypatch):
    def git(*arguments):
        who = ["-c", "user.name=a", "-c", "user.email=a@b"]
        subprocess.run(["git", *who, *arguments], cwd=tmp_path, check=True, capture_output=True)

    (tmp_path / "experiments" / "results").mkdir(parents=True)
    (tmp_path / "lowbit").mkdir()
    git("init")
    git("commit", "--allow-empty", "-m", "first")
    monkeypatch.setattr(provenance, "ROOT", tmp_path)
    (tmp_path / "experiments" / "results" / "first.json").write_text("{}")
    assert source()["dirty"] is False
    (tmp_path / "lowbit" / "new.py").write_text("")
    assert source()["dirty"] is True


def test_eval_finds_what_training_reported(tiny, tmp_path):
    from hydra import compose, initialize_config_dir
    from omegaconf import OmegaConf

    # The best by a rate that falls is the first epoch.
    metrics = tiny("trainer.max_epochs=3", "callbacks.checkpoint.monitor=lr/rest")
    folder = tmp_path / "run"
    (folder / ".hydra").mkdir()
    with initialize_config_dir(version_base="1.3", config_dir=str(CONFIGS)):
        from tests.experiments.conftest import TINY

        OmegaConf.save(compose("train", overrides=list(TINY)), folder / ".hydra" / "config.yaml")
        best, last = (
            compose("eval", overrides=[f"checkpoint={path}"])
            for path in (folder, folder / "checkpoints" / "last.ckpt")
        )
    before = sorted(folder.rglob("*"))
    found = evaluate(best) | {f"{name}_last": value for name, value in evaluate(last).items()}
    assert found == metrics
    assert metrics["test/loss"] != metrics["test/loss_last"]
    assert sorted(folder.rglob("*")) == before


def test_sizes_count_packed_weights_in_bits():
    model = nn.Sequential(
        QLinear(10, 3, bias=False, weight_quantization="sign"),
        nn.BatchNorm1d(3, affine=False),
        nn.Linear(3, 2),
    )
    size = sizes(model)
    # BatchNorm keeps mean and variance (3 + 3 floats) and a count of 8 bytes.
    rest = (3 * 2 + 2) * 4 + 6 * 4 + 8
    assert size == {
        "parameters": 38,
        "bits": {"1": 30},
        "bytes": 120 + rest,
        "bytes_packed": 4 + rest,
    }


def test_seeds_are_gathered_and_recipes_kept_apart(tmp_path):
    a = run(tmp_path / "a")
    b = run(tmp_path / "b", seed=1, overrides=["seed=1"], metrics={"test/accuracy": 0.96})
    c = run(tmp_path / "c", overrides=["experiment=first", "model=lenet", "data.root=/x", "seed=0"])
    into = tmp_path / "results"
    results.collect([a, b, c], into)
    gathered = json.loads((into / "first.json").read_text())
    plain, lenet = gathered["groups"]
    assert (plain["n"], plain["overrides"]) == (2, [])
    accuracy = plain["metrics"]["test/accuracy"]
    assert accuracy["values"] == [0.98, 0.96]
    assert accuracy["mean"] == pytest.approx(0.97)
    assert accuracy["std"] == pytest.approx(0.02 / 2**0.5)
    assert plain["command"] == "python -m experiments.train -m experiment=first seed=0,1"
    assert (lenet["n"], lenet["overrides"]) == (1, ["model=lenet"])
    assert lenet["metrics"]["test/accuracy"]["std"] is None
    assert "/x" not in (into / "first.json").read_text()


def test_collecting_is_repeatable_and_adds_to_what_is_there(tmp_path):
    into = tmp_path / "results"
    a, b = run(tmp_path / "a"), run(tmp_path / "b", seed=1, overrides=["seed=1"])
    results.collect([a, b], into)
    both = {path.name: path.read_text() for path in into.iterdir()}
    for order in ([b, a], [a], []):
        results.collect(order, into)
        assert {path.name: path.read_text() for path in into.iterdir()} == both
    newer = run(
        tmp_path / "n", metrics={"test/accuracy": 0.5}, finished="2026-02-01T00:00:00+00:00"
    )
    results.collect([newer], into)
    group = json.loads((into / "first.json").read_text())["groups"][0]
    assert group["metrics"]["test/accuracy"]["values"] == [0.5, 0.98]


def test_the_table_has_the_published_figure_beside_ours(tmp_path):
    into = tmp_path / "results"
    a, b = run(tmp_path / "a"), run(tmp_path / "b", seed=1, overrides=["seed=1"])
    results.collect([a, b], into)
    text = (into / "RESULTS.md").read_text()
    (row,) = [line for line in text.splitlines() if line.startswith("| first")]
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells == [
        "first", "99.00 (best)", "98.00 ± 0.00", "97.00", "-1.00", "2", "a processor", "12 s",
        "c" * 9,
    ]  # fmt: skip


def test_a_last_epoch_is_compared_with_the_last(tmp_path):
    published = {**RESULT["published"], "selection": "last"}
    results.collect([run(tmp_path / "a", published=published)], tmp_path / "results")
    assert "| -2.00 |" in (tmp_path / "results" / "RESULTS.md").read_text()


@pytest.mark.parametrize("word", ["debug=quick", "data=synthetic"])
def test_trials_of_the_code_are_no_results(tmp_path, word):
    into = tmp_path / "results"
    trial = run(tmp_path / "a", overrides=["experiment=first", word, "seed=0"])
    with pytest.raises(ValueError, match=f"{word}, so it is no result of first"):
        results.collect([trial], into, allow_dirty=True)
    assert not into.exists()


@pytest.mark.parametrize("dirty", [True, None])
def test_results_of_changed_files_are_refused_or_marked(tmp_path, dirty):
    a = run(tmp_path / "a", dirty=dirty, commit=None if dirty is None else "c" * 40)
    into = tmp_path / "results"
    with pytest.raises(ValueError, match="--allow-dirty"):
        results.collect([a], into)
    assert not into.exists()
    results.collect([a], into, allow_dirty=True)
    assert "(dirty)" in (into / "RESULTS.md").read_text()


def test_the_script_says_which_run_is_unfinished(tmp_path):
    script = CONFIGS.parent / "scripts" / "collect_results.py"
    done = subprocess.run(
        [sys.executable, script, tmp_path, "--into", tmp_path], capture_output=True, text=True
    )
    assert done.returncode == 1
    assert "not the folder of a finished run" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_script_leaves_out_what_did_not_finish_where_another_did(tmp_path):
    script = CONFIGS.parent / "scripts" / "collect_results.py"
    (tmp_path / "failed").mkdir()
    overrides = ["experiment=digits_binary", "seed=0"]
    ended = run(tmp_path / "ended", experiment="digits_binary", overrides=overrides)
    done = subprocess.run(
        [sys.executable, script, tmp_path / "failed", ended, "--into", tmp_path / "results"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert f"note: {tmp_path / 'failed'} left out: no result.json" in done.stderr
    assert (tmp_path / "results" / "digits_binary.json").is_file()


def test_a_file_that_is_no_result_is_named(tmp_path):
    for text in ("{}", "[]"):
        (tmp_path / "result.json").write_text(text)
        with pytest.raises(ValueError, match=r"result.json is not the result of a run"):
            results.read_result(tmp_path)


def test_a_damaged_result_is_named(tmp_path):
    (tmp_path / "result.json").write_text('{"experiment": ')
    with pytest.raises(ValueError, match=r"result.json is damaged .*leave this run out"):
        results.read_result(tmp_path)
