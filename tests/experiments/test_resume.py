"""A training that was stopped and resumed is the training that was not."""

import csv
import json
import os
import signal
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from experiments import _app
from experiments.callbacks.progress import Progress

# All that draws random numbers or has a state beside the weights.
EVERYTHING = (
    "quantizer=ede",
    "quantizer.input=stochastic_sign",
    "model.dropout=0.3",
    "recipe.mixup=0.2",
    "recipe.label_smoothing=0.1",
    "scheduler.factory.warmup=1.5",
    "callbacks=[default,weight_clip,flip_ratio,cancelled_gradients]",
    "quantizer.gradient_cancellation_threshold=1.0",
    "trainer.max_epochs=5",
    "seed=3",
)


def state(folder, name="last"):
    return torch.load(folder / "checkpoints" / f"{name}.ckpt", weights_only=True)


def stop_after(monkeypatch, epoch):
    """End the training with an error when this epoch (from 0) begins, as a crash would."""

    def on_train_epoch_start(self, trainer, pl_module):
        if trainer.current_epoch == epoch:
            raise RuntimeError("stopped by the test")

    monkeypatch.setattr(Progress, "on_train_epoch_start", on_train_epoch_start)


@pytest.mark.parametrize("stopped", [1, 3])
def test_resumed_equals_uninterrupted(tiny, tmp_path, monkeypatch, stopped):
    whole, first, second = tmp_path / "whole", tmp_path / "first", tmp_path / "second"
    expected = tiny(*EVERYTHING, folder=whole)
    with monkeypatch.context() as patch:
        stop_after(patch, stopped)
        with pytest.raises(RuntimeError, match="stopped by the test"):
            tiny(*EVERYTHING, folder=first)
    assert not (first / "result.json").exists()
    assert state(first)["epoch"] == stopped - 1
    metrics = tiny(*EVERYTHING, f"resume={first}/checkpoints/last.ckpt", folder=second)

    assert metrics == expected
    assert (second / "metrics.csv").read_text() == (whole / "metrics.csv").read_text()
    for name in ("last", "best"):
        a, b = state(whole, name), state(second, name)
        assert a["epoch"] == b["epoch"]
        assert a["global_step"] == b["global_step"]
        for key, value in a["state_dict"].items():
            assert torch.equal(value, b["state_dict"][key]), key
        moments = a["optimizer_states"][0]["state"]
        for i, values in moments.items():
            for key, value in values.items():
                assert torch.equal(value, b["optimizer_states"][0]["state"][i][key])


@pytest.mark.parametrize("interval", ["step", "epoch"])
def test_a_schedulers_rate_goes_on_after_resume(tiny, tmp_path, monkeypatch, interval):
    halving = (
        "~scheduler",
        f"+scheduler.interval={interval}",
        "+scheduler.factory={_target_: torch.optim.lr_scheduler.ExponentialLR, _partial_: true, "
        "gamma: 0.5}",
        "trainer.max_epochs=3",
    )
    tiny(*halving, folder=tmp_path / "whole")
    with monkeypatch.context() as patch:
        stop_after(patch, 2)
        with pytest.raises(RuntimeError):
            tiny(*halving, folder=tmp_path / "first")
    tiny(*halving, f"resume={tmp_path}/first/checkpoints/last.ckpt", folder=tmp_path / "second")

    def rates(folder):
        with (tmp_path / folder / "metrics.csv").open() as file:
            return [float(row["lr/rest"]) for row in csv.DictReader(file)]

    steps = 4 if interval == "step" else 1
    assert rates("whole") == pytest.approx([1e-3 * 0.5 ** (steps * n) for n in (1, 2, 3)])
    assert rates("second") == rates("whole")


def test_the_last_checkpoint_is_of_the_last_epoch_also_where_an_earlier_one_is_best(tiny, tmp_path):
    tiny("callbacks.checkpoint.monitor=lr/rest", "trainer.max_epochs=3")  # which only falls
    assert state(tmp_path / "run", "best")["epoch"] == 0
    assert state(tmp_path / "run", "last")["epoch"] == 2


def test_a_best_epoch_from_before_the_stop_stays_the_best(tiny, tmp_path, monkeypatch):
    falling = ("callbacks.checkpoint.monitor=lr/rest", "trainer.max_epochs=3")
    whole = tiny(*falling, folder=tmp_path / "whole")
    with monkeypatch.context() as patch:
        stop_after(patch, 2)
        with pytest.raises(RuntimeError):
            tiny(*falling, folder=tmp_path / "first")
    resume = f"resume={tmp_path}/first/checkpoints/last.ckpt"
    assert tiny(*falling, resume, folder=tmp_path / "second") == whole
    assert state(tmp_path / "second", "best")["epoch"] == 0


def test_of_equal_epochs_the_latest_is_best(tiny, tmp_path):
    tiny("callbacks.checkpoint.monitor=lr/rest", "scheduler=none", "trainer.max_epochs=3")
    assert state(tmp_path / "run", "best")["epoch"] == 2


def test_a_finished_run_is_not_resumed_to_fewer_epochs(tiny, tmp_path):
    tiny("trainer.max_epochs=3", folder=tmp_path / "whole")
    resume = f"resume={tmp_path}/whole/checkpoints/last.ckpt"
    for epochs in (1, 2):
        with pytest.raises(_app.Problem, match=f"3 epochs .* trainer.max_epochs={epochs};"):
            tiny(f"trainer.max_epochs={epochs}", resume)
    assert not (tmp_path / "run").exists()
    config = tmp_path / "whole" / ".hydra" / "config.yaml"
    config.parent.mkdir()
    config.write_text("seed: 0")
    with pytest.raises(_app.Problem, match=r"a training of seed 0, .* got seed=7"):
        tiny("trainer.max_epochs=3", "seed=7", resume)


def test_weights_alone_are_no_training_to_go_on_with(tiny, tmp_path):
    tiny("trainer.max_epochs=1", folder=tmp_path / "whole")
    torch.save({"state_dict": state(tmp_path / "whole")["state_dict"]}, tmp_path / "weights.ckpt")
    with pytest.raises(_app.Problem, match=r"no 'epoch', .* start=.*weights.ckpt begins one"):
        tiny("trainer.max_epochs=1", f"resume={tmp_path}/weights.ckpt")


def test_a_finished_run_says_that_nothing_is_left_to_train(tiny, tmp_path, capsys):
    first = tiny("trainer.max_epochs=2", folder=tmp_path / "whole")
    resume = f"resume={tmp_path}/whole/checkpoints/last.ckpt"
    assert "already trained" not in capsys.readouterr().err
    assert tiny("trainer.max_epochs=2", resume) == first
    said = capsys.readouterr().err
    assert "has already trained 2 of 2 epochs" in said
    assert "give trainer.max_epochs=" in said


@pytest.mark.parametrize("words", [("optimizer=sgd", "optimizer.lr=0.1"), ("quantizer=float",)])
def test_a_checkpoint_of_another_optimizer_is_refused(words, tiny, tmp_path):
    tiny("trainer.max_epochs=1", folder=tmp_path / "first")
    resume = f"resume={tmp_path}/first/checkpoints/last.ckpt"
    with pytest.raises(_app.Problem, match=r"resume: the checkpoint .* of another optimizer"):
        tiny("trainer.max_epochs=2", resume, *words)


def test_an_interrupted_run_says_how_to_go_on(tiny, tmp_path, monkeypatch, capsys):
    def interrupt(self, trainer, pl_module):
        if trainer.current_epoch == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(Progress, "on_train_epoch_start", interrupt)
    with pytest.raises((SystemExit, KeyboardInterrupt)):
        tiny("trainer.max_epochs=3")
    assert "run/checkpoints/last.ckpt goes on" in capsys.readouterr().err


def test_a_finished_training_that_is_resumed_leaves_what_it_left_before(tiny, tmp_path):
    expected = tiny("trainer.max_epochs=2", folder=tmp_path / "whole")
    resume = f"resume={tmp_path}/whole/checkpoints/last.ckpt"
    assert tiny("trainer.max_epochs=2", resume) == expected
    for name in ("checkpoints/last.ckpt", "checkpoints/best.ckpt", "metrics.csv"):
        assert (tmp_path / "run" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_the_seconds_of_a_resumed_run_are_those_of_all_its_parts(tiny, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        stop_after(patch, 1)
        with pytest.raises(RuntimeError):
            tiny("trainer.max_epochs=2", folder=tmp_path / "first")
    path = tmp_path / "first" / "checkpoints" / "last.ckpt"
    saved = torch.load(path, weights_only=True)
    ((key, kept),) = ((k, v) for k, v in saved["callbacks"].items() if "Checkpoint" in k)
    assert 0 < kept["seconds"] < 100
    kept["seconds"] = 1000.0
    torch.save(saved, path)
    tiny("trainer.max_epochs=2", f"resume={path}", folder=tmp_path / "second")
    seconds = json.loads((tmp_path / "second" / "result.json").read_text())["seconds"]
    assert 1000 < seconds < 1100
    again = state(tmp_path / "second")["callbacks"][key]["seconds"]
    assert 1000 < again < 1100


def test_a_checkpoint_is_replaced_as_a_whole(tiny, tmp_path, monkeypatch):
    save, folder = torch.save, tmp_path / "run" / "checkpoints"
    seen = []

    def half(contents, file, *args):
        if (folder / "last.ckpt").is_file() and seen:
            Path(file).write_bytes(b"half of it")
            raise OSError("no space left")
        seen.append(Path(file))
        save(contents, file, *args)

    monkeypatch.setattr(torch, "save", half)
    with pytest.raises(OSError, match="no space left"):
        tiny("trainer.max_epochs=3")
    assert {path.parent for path in seen} == {folder}
    assert {path.name for path in folder.iterdir()} == {"best.ckpt", "last.ckpt"}
    assert state(tmp_path / "run")["epoch"] == 0


def test_a_run_that_sigterm_ends_says_so(tiny, capsys, monkeypatch):
    def end(self, trainer, pl_module):
        if trainer.current_epoch == 1:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(Progress, "on_train_epoch_start", end)
    with pytest.raises(SystemExit) as ended:
        tiny("trainer.max_epochs=3")
    assert ended.value.code == 143
    assert "run/checkpoints/last.ckpt goes on" in capsys.readouterr().err


@pytest.mark.parametrize("limits", [("val",), ("test",), ("val", "test")])
def test_a_run_without_validation_or_test_ends_with_a_result(tiny, tmp_path, limits):
    overrides = [f"trainer.limit_{name}_batches=0" for name in limits]
    metrics = tiny("trainer.max_epochs=2", *overrides)
    assert {name.partition("/")[0] for name in metrics} == {"val", "test"} - set(limits)
    assert json.loads((tmp_path / "run" / "result.json").read_text())["metrics"] == metrics
    assert state(tmp_path / "run", "best")["epoch"] in (0, 1)


def test_seeds_differ_and_zero_is_a_seed(tiny, tmp_path):
    runs = {
        (seed, i): tiny(f"seed={seed}", "trainer.max_epochs=1", folder=tmp_path / f"{seed}{i}")
        for seed, i in ((0, 0), (0, 1), (1, 0))
    }
    assert runs[0, 0] == runs[0, 1]
    assert runs[0, 0] != runs[1, 0]


def test_resume_alone_brings_the_overrides_of_its_run(tmp_path):
    hydra = tmp_path / ".hydra"
    hydra.mkdir()
    (hydra / "overrides.yaml").write_text(json.dumps(["model=lenet", "seed=1", "+data.x=2"]))
    word = f"resume={tmp_path}/checkpoints/last.ckpt"
    assert _app.with_old_overrides([word, "seed=2"]) == ["model=lenet", "+data.x=2", word, "seed=2"]
    assert _app.with_old_overrides(["seed=2"]) == ["seed=2"]
    assert _app.with_old_overrides(["resume=null"]) == ["resume=null"]


def test_the_same_seed_draws_anew_in_each_epoch(config):
    from experiments.recipes.classify import Classify

    model = torch.nn.Linear(2, 10)
    recipe = Classify(model, 10, optimizer=lambda m: None, seed=0)
    drawn = []
    for epoch in (0, 1, 0):
        recipe._trainer = SimpleNamespace(current_epoch=epoch, global_rank=0)
        recipe._fabric = None
        recipe.on_train_epoch_start()
        drawn.append(float(torch.rand(())))
    assert drawn[0] == drawn[2] != drawn[1]
