"""The commands as they are typed: processes, folders, sweeps."""

import json
import os
import subprocess
import sys

import torch

from experiments._app import CONFIGS
from experiments.train import train as in_process
from tests.experiments.conftest import TINY


def train(*arguments, cwd):
    done = subprocess.run(
        [sys.executable, "-m", "experiments.train", *arguments],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(CONFIGS.parent), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return done


def weights(folder):
    return torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]


def test_two_processes_train_what_one_trains_on_the_same_batches(config, tmp_path):
    # In double precision, so that the order of a sum cannot turn a sign.
    common = (
        "~model",
        "+model._target_=tests.experiments.plain.Plain",
        "trainer.precision=64-true",
        "trainer.max_epochs=2",
        "recipe.label_smoothing=0.1",
    )
    overrides = [o for o in TINY if not o.startswith(("model.", "data.batch_size"))]
    done = train(
        *overrides, *common, "data.batch_size=8", "trainer=ddp", "hydra.run.dir=two", cwd=tmp_path
    )
    one = in_process(config(*overrides, *common, "data.batch_size=16", folder=tmp_path / "one"))

    two = json.loads((tmp_path / "two" / "result.json").read_text())
    assert two["processes"] == 2
    assert "several processes" in two["packed"]["why"]
    assert done.stdout.count("best by validation") == 1
    for name, value in one.items():
        assert abs(value - two["metrics"][name]) < 1e-6, name
    for name, value in weights(tmp_path / "one").items():
        torch.testing.assert_close(value, weights(tmp_path / "two")[name], rtol=0, atol=1e-9)


def test_a_sweep_runs_side_by_side_and_each_run_has_its_folder(tmp_path):
    quick = ("debug=quick", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2")
    spec = "quantizer.input=sign,approx_sign"
    said = train("-m", *TINY, *quick, spec, "seed=0,1", cwd=tmp_path).stdout
    results = [json.loads(p.read_text()) for p in tmp_path.glob("multirun/*/*/result.json")]
    inputs = {tuple(o for o in r["overrides"] if o.startswith("quantizer")) for r in results}
    assert len(results) == 4
    assert inputs == {("quantizer.input=sign",), ("quantizer.input=approx_sign",)}
    assert sorted(r["seed"] for r in results) == [0, 0, 1, 1]
    assert {r["threads"] for r in results} == {1}
    assert not [path for path in tmp_path.rglob("*") if "None" in path.name]
    assert not (tmp_path / "runs").exists()
    lines = [
        line.replace("│", " ").split() for line in said.partition("sweep of 4 jobs")[2].splitlines()
    ]
    rows = [line for line in lines if line and line[0] in ("sign", "approx_sign")]
    assert [row[:4] for row in rows[4:]] == [[q, "n", "=", "2"] for q in ("sign", "approx_sign")]
    assert [row[:2] for row in rows[:4]] == [
        ["sign", "0"],
        ["sign", "1"],
        ["approx_sign", "0"],
        ["approx_sign", "1"],
    ]
