"""Sweeps: what a search chooses, what it is told, and several processes in a job."""

import importlib.util
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.types import RunMode
from omegaconf import OmegaConf

from experiments import _processes, _search
from experiments._app import CONFIGS, Problem
from tests.experiments.conftest import TINY
from tests.experiments.test_command import train


def absent(package):
    return importlib.util.find_spec(package) is None


needs_optuna = pytest.mark.skipif(absent("optuna"), reason="optuna is not installed")
needs_submitit = pytest.mark.skipif(absent("submitit"), reason="submitit is not installed")

BETA = "quantizer.input=choice(sign,{name:swish_sign,beta:tag(log,interval(1,20))})"


class Chooser:
    """Chooses what it was told to, and remembers what it was asked."""

    def __init__(self, **chosen):
        self.chosen = {name.replace("__", "."): value for name, value in chosen.items()}
        self.asked = {}

    def suggest_categorical(self, name, choices):
        self.asked[name] = list(choices)
        return choices[self.chosen[name]]

    def suggest_int(self, name, low, high, *, step=1, log=False):
        self.asked[name] = (int, low, high, step, log)
        return self.chosen[name]

    def suggest_float(self, name, low, high, *, step=None, log=False):
        self.asked[name] = (float, low, high, step, log)
        return self.chosen[name]


def test_a_parameter_is_asked_for_only_where_its_quantizer_was_chosen():
    space = _search.read([BETA])
    plain = Chooser(quantizer__input=0)
    assert space.jobs(plain) == [["quantizer.input=sign"]]
    assert list(plain.asked) == ["quantizer.input"]
    swish = Chooser(quantizer__input=1, quantizer__input__swish_sign__beta=2.5)
    assert space.jobs(swish) == [["quantizer.input={name:swish_sign,beta:2.5}"]]
    assert swish.asked["quantizer.input.swish_sign.beta"] == (float, 1.0, 20.0, None, True)


@pytest.mark.parametrize(
    ("sweep", "asked"),
    [
        ("interval(1,20)", (float, 1.0, 20.0, None, False)),
        ("tag(log,interval(1e-4,1e-2))", (float, 1e-4, 1e-2, None, True)),
        ("int(interval(1,5))", (int, 1, 5, 1, False)),
        ("range(1,8)", (int, 1, 7, 1, False)),
        ("range(8,1,-2)", (int, 2, 8, 2, False)),
        ("range(0,1,0.25)", (float, 0.0, 0.75, 0.25, False)),
    ],
)
def test_what_is_asked_for_a_sweep(sweep, asked):
    chooser = Chooser(x=asked[0](3))
    assert _search.read([f"x={sweep}"]).jobs(chooser) == [[f"x={asked[0](3)}"]]
    assert chooser.asked == {"x": asked}


def test_a_float_has_six_digits():
    jobs = _search.read(["x=interval(0,1)"]).jobs(Chooser(x=0.12345678901234))
    assert jobs == [["x=0.123457"]]


def test_each_choice_is_trained_with_every_seed():
    space = _search.read(["~experiment", "model=mlp", "quantizer.input=sign,reste", "seed=0,1,2"])
    assert space.jobs(Chooser(quantizer__input=1)) == [
        ["~experiment", "model=mlp", "quantizer.input=reste", f"seed={seed}"] for seed in range(3)
    ]


def test_the_last_of_two_words_for_a_key_counts():
    assert _search.read(["x=1,2", "y=0", "x=3"]).jobs(Chooser()) == [["x=3", "y=0"]]


def test_the_examples_have_every_value_of_every_choice():
    space = _search.read(["a=1,2,3", "b={name:x,c:choice(4,5)}", "seed=7,8"])
    assert space.examples() == [
        ["a=1", "b={name:x,c:4}", "seed=7"],
        ["a=2", "b={name:x,c:5}", "seed=7"],
        ["a=3", "b={name:x,c:4}", "seed=7"],
    ]


def test_what_was_chosen_reads_as_it_was_given():
    given = "x=choice('a b',[1,{k:'c,d'}],null)".replace(",null", "")
    values = [
        OverridesParser.create().parse_override(job[0]).value()
        for job in _search.read([given]).examples()
    ]
    assert values == ["a b", [1, {"k": "c,d"}]]


def sweeper(folder, accuracy, **options):
    """A search whose jobs give the metrics that ``accuracy`` makes of their overrides."""
    from hydra_plugins.lowbit_optuna import OptunaSweeper

    settings = {"metric": "val/accuracy", "direction": "maximize", "trials": 4, "parallel": 1}
    made = OptunaSweeper(**{**settings, "sampler": 0, "storage": None, "params": None, **options})
    made.config = OmegaConf.create({"hydra": {"sweep": {"dir": str(folder)}}})
    made.validate_batch_is_legal = lambda batch: None

    def launch(batch, initial_job_idx):
        return [SimpleNamespace(return_value={"val/accuracy": accuracy(job)}) for job in batch]

    made.launcher = SimpleNamespace(launch=launch)
    return made


@needs_optuna
def test_a_search_is_told_the_mean_over_the_seeds_and_says_which_choice_was_best(tmp_path, capsys):
    def accuracy(job):
        right = {"q=sign": 0.5, "q=reste": 0.7}[job[0]]
        return right + (0.1 if job[1] == "seed=1" else -0.1)

    sweeper(tmp_path, accuracy, trials=8).sweep(["q=sign,reste", "seed=0,1"])
    search = json.loads((tmp_path / "search.json").read_text())
    assert {t["overrides"][0]: round(t["value"], 6) for t in search["trials"]} == {
        "q=sign": 0.5,
        "q=reste": 0.7,
    }
    assert len(search["trials"]) == 8
    assert search["best"]["overrides"] == ["q=reste"]
    said = capsys.readouterr().out
    assert "best of 8 trials: val/accuracy 0.7000\npython -m experiments.train q=reste\n" in said


@needs_optuna
def test_a_search_comes_close_to_the_best_number(tmp_path):
    def accuracy(job):
        return -((float(job[0].partition("=")[2]) - 2) ** 2)

    sweeper(tmp_path, accuracy, trials=40).sweep(["x=interval(-10,10)"])
    best = json.loads((tmp_path / "search.json").read_text())["best"]
    assert abs(best["chosen"]["x"] - 2) < 0.5


@needs_optuna
def test_a_stored_search_goes_on(tmp_path):
    storage = {"storage": f"sqlite:///{tmp_path / 'study.db'}"}
    sweeper(tmp_path / "a", lambda job: 0.1, trials=1, **storage).sweep(["x=interval(0,1)"])
    sweeper(tmp_path / "b", lambda job: 0.2, trials=3, **storage).sweep(["x=interval(0,1)"])
    search = json.loads((tmp_path / "b" / "search.json").read_text())
    assert [trial["value"] for trial in search["trials"]] == [0.1, 0.2, 0.2]
    assert len({trial["chosen"]["x"] for trial in search["trials"]}) == 3


@needs_optuna
def test_a_training_that_ends_in_no_number_is_not_best(tmp_path):
    values = iter([float("nan"), 0.3])
    sweeper(tmp_path, lambda job: next(values), trials=2).sweep(["x=interval(0,1)"])
    search = json.loads((tmp_path / "search.json").read_text())
    assert search["best"]["value"] == 0.3


@needs_optuna
def test_a_search_for_an_unknown_metric_direction_or_storage_is_refused(tmp_path):
    with pytest.raises(Problem, match="one of val/accuracy; got 'accuracy'"):
        sweeper(tmp_path, lambda job: 0.5, metric="accuracy").sweep(["x=1,2"])
    with pytest.raises(Problem, match="direction"):
        sweeper(tmp_path, lambda job: 0.5, direction="up").sweep(["x=1,2"])
    with pytest.raises(Problem, match="storage=nonsense: "):
        sweeper(tmp_path, lambda job: 0.5, storage="nonsense").sweep(["x=1,2"])


def test_without_optuna_there_is_one_message(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(Problem, match=r'pip install -e "\.\[sweeps\]"'):
        sweeper(tmp_path, lambda job: 0.5).sweep(["x=1,2"])


@needs_optuna
def test_the_command_searches_and_ends_with_a_table_of_means(tmp_path):
    quick = ("debug=quick", "packed=false", "sweeper=optuna", "hydra.sweeper.trials=2")
    said = train("-m", *TINY, *quick, BETA, "seed=0,1", cwd=tmp_path).stdout
    (folder,) = tmp_path.glob("multirun/*")
    search = json.loads((folder / "search.json").read_text())
    results = [json.loads(p.read_text()) for p in folder.rglob("result.json")]
    assert len(results) == 4
    for trial in search["trials"]:
        own = [r for r in results if set(trial["overrides"]) < set(r["overrides"])]
        mean = statistics.fmean(r["metrics"]["val/accuracy"] for r in own)
        assert trial["value"] == pytest.approx(mean)
        assert sorted(r["seed"] for r in own)[:2] == [0, 1]
    assert "best of 2 trials" in said
    assert "n = 2" in said.partition("sweep of 4 jobs")[2]


def test_a_wrong_choice_of_a_search_is_found_before_the_first_training(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "experiments.train", "-m", *TINY, "sweeper=optuna",
         "quantizer.input=sign,{name:swish_sign,betta:interval(1,2)}"],
        cwd=tmp_path, capture_output=True, text=True, timeout=120,
        env={**os.environ, "PYTHONPATH": str(CONFIGS.parent)},
    )  # fmt: skip
    assert done.returncode == 1
    assert "betta" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.rglob("metrics.csv"))


@pytest.mark.parametrize("mode", [RunMode.RUN, RunMode.MULTIRUN])
def test_a_job_of_a_sweep_leaves_the_next_one_a_clean_environment(mode, monkeypatch):
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    monkeypatch.setenv("MASTER_PORT", "1")
    monkeypatch.setattr(HydraConfig, "initialized", lambda: True)
    monkeypatch.setattr(HydraConfig, "get", lambda: SimpleNamespace(mode=mode))
    with _processes.of_one_job():
        os.environ["LOCAL_RANK"], os.environ["MASTER_PORT"] = "0", "2"
    after = (os.environ.pop("LOCAL_RANK", None), os.environ["MASTER_PORT"])
    assert after == ((None, "1") if mode == RunMode.MULTIRUN else ("0", "2"))


def ddp_sweep(tmp_path, *words):
    quick = ("debug=quick", "trainer=ddp", "data.batch_size=8", "seed=0,1")
    tiny = [word for word in TINY if not word.startswith("data.batch_size")]
    said = train("-m", *tiny, *quick, *words, cwd=tmp_path).stdout
    results = [json.loads(p.read_text()) for p in tmp_path.glob("multirun/*/*/result.json")]
    assert sorted(r["seed"] for r in results) == [0, 1]
    assert {r["processes"] for r in results} == {2}
    # The second processes run their job alone, and in its folder.
    assert said.count("sweep of") == 1
    assert len(list(tmp_path.glob("multirun/*"))) == 1
    assert not (tmp_path / "runs").exists()
    return {r["seed"]: r["metrics"] for r in results}


def test_every_job_of_a_sweep_has_its_two_processes(tmp_path):
    ddp_sweep(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["joblib", pytest.param("submitit", marks=needs_submitit)])
def test_launchers_start_jobs_of_two_processes_with_the_same_result(tmp_path, launcher):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    plain = ddp_sweep(tmp_path / "a")
    assert ddp_sweep(tmp_path / "b", f"launcher={launcher}") == plain


@pytest.mark.slow
def test_two_nodes_train_what_two_processes_train(tmp_path):
    tiny = [word for word in TINY if not word.startswith("data.batch_size")]
    words = [*tiny, "debug=quick", "trainer=ddp", "data.batch_size=8"]
    train(*words, "hydra.run.dir=one", cwd=tmp_path)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    nodes = [
        subprocess.Popen(
            [sys.executable, "-m", "experiments.train", *words, "trainer.num_nodes=2",
             "trainer.devices=1", "hydra.run.dir=two"],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(CONFIGS.parent), "OMP_NUM_THREADS": "1",
                 "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "NODE_RANK": rank,
                 "LOCAL_RANK": "0", "WORLD_SIZE": "2"},
        )
        for rank in ("0", "1")
    ]  # fmt: skip
    assert [node.wait(timeout=300) for node in nodes] == [0, 0]
    one, two = (json.loads((tmp_path / n / "result.json").read_text()) for n in ("one", "two"))
    assert two["processes"] == 2
    assert two["metrics"] == pytest.approx(one["metrics"], abs=1e-6)
    saved = [
        torch.load(tmp_path / n / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
        for n in ("one", "two")
    ]
    torch.testing.assert_close(*saved)


def slurm(*words):
    with initialize_config_dir(version_base="1.3", config_dir=str(CONFIGS)):
        cfg = compose(
            "train", overrides=["launcher=slurm", "name=x", *words], return_hydra_config=True
        )
    return {
        key: cfg.hydra.launcher[key]
        for key in ("nodes", "tasks_per_node", "gpus_per_node", "timeout_min")
    }


@needs_submitit
def test_slurm_gives_every_process_a_task_and_a_gpu():
    asked = slurm("trainer=ddp", "trainer.devices=4", "trainer.num_nodes=2")
    assert asked == {"nodes": 2, "tasks_per_node": 4, "gpus_per_node": 4, "timeout_min": 1440}
    one = slurm("trainer=gpu", "hydra.launcher.timeout_min=30")
    assert one == {"nodes": 1, "tasks_per_node": 1, "gpus_per_node": 1, "timeout_min": 30}
    assert slurm("trainer=cpu")["gpus_per_node"] is None


@needs_submitit
def test_without_slurm_there_is_one_message(tmp_path):
    if shutil.which("srun"):
        pytest.skip("there is SLURM")
    done = subprocess.run(
        [sys.executable, "-m", "experiments.train", "-m", *TINY, "launcher=slurm", "seed=0,1"],
        cwd=tmp_path, capture_output=True, text=True, timeout=120,
        env={**os.environ, "PYTHONPATH": str(CONFIGS.parent)},
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "launcher=submitit starts the same jobs" in done.stderr
