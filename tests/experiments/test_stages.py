"""Stages: each begins with what the one before left, and the run is one command."""

import json
import subprocess
import sys

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf, open_dict

from experiments import _checkpoint, _stages
from experiments._app import CONFIGS, Problem
from experiments.callbacks.progress import Progress
from experiments.train import train
from lowbit.nn import latent_layers
from tests.experiments.conftest import TINY

TWO = ("stages=two_step", "trainer.max_epochs=2", "packed=false")


def saved(folder, name="last"):
    return torch.load(folder / "checkpoints" / f"{name}.ckpt", weights_only=True)["state_dict"]


def test_the_second_step_begins_with_the_last_weights_of_the_first(
    tiny_config, tmp_path, monkeypatch
):
    begun = []
    fit = _checkpoint.load_model
    monkeypatch.setattr(
        _checkpoint,
        "load_model",
        lambda model, path, *a: begun.append((model, path)) or fit(model, path, *a),
    )
    train(
        tiny_config(
            *TWO, "+stages.both.optimizer={lr: 0.0}", "+stages.activations.trainer={max_epochs: 3}"
        )
    )
    run = tmp_path / "run"
    ((model, path),) = begun
    assert path == str(run / "activations" / "checkpoints" / "last.ckpt")
    assert len(list(latent_layers(model))) == 1
    first, second = saved(run / "activations"), saved(run / "both")
    for name, _ in model.named_parameters():
        assert torch.equal(first[f"model.{name}"], second[f"model.{name}"])  # the rate was 0


def test_in_the_first_step_weights_are_real_and_inputs_binary(tiny_config):
    first, second = _stages.plan(tiny_config(*TWO)).values()
    assert (first.quantizer.input, first.quantizer.weight) == ("sign", None)
    assert (second.quantizer.input, second.quantizer.weight) == ("sign", "sign")


def test_a_run_in_stages_leaves_one_result(tiny_config, tmp_path):
    metrics = train(tiny_config("stages=two_step", "trainer.max_epochs=2", "seed=3"))
    run = tmp_path / "run"
    result = json.loads((run / "result.json").read_text())
    assert result["metrics"] == metrics
    assert [stage["name"] for stage in result["stages"]] == ["activations", "both"]
    assert result["seconds"] == pytest.approx(sum(s["seconds"] for s in result["stages"]), abs=0.1)
    assert "packed" in result
    assert list(run.rglob("result.json")) == [run / "result.json"]
    first = json.loads((run / "activations" / "stage.json").read_text())
    assert "packed" not in first
    assert first["published"] is None
    assert "1" not in first["bits"]
    assert "1" in result["bits"]


def test_a_stage_is_evaluated_by_its_own_configuration(tiny_config, tmp_path):
    from experiments.eval import evaluate

    metrics = train(tiny_config(*TWO))
    cfg = OmegaConf.merge(
        OmegaConf.load(CONFIGS / "eval.yaml"),
        {"trainer": tiny_config(*TWO).trainer},
        {"checkpoint": str(tmp_path / "run" / "both" / "checkpoints" / "best.ckpt")},
    )
    assert evaluate(cfg)["test/accuracy"] == metrics["test/accuracy"]


def test_a_resumed_stage_goes_on_and_the_ones_behind_it_follow(tiny_config, tmp_path, monkeypatch):
    whole, first, second = tmp_path / "whole", tmp_path / "first", tmp_path / "second"
    expected = train(tiny_config(*TWO, folder=whole))

    def on_train_epoch_start(self, trainer, pl_module):
        if trainer.current_epoch == 1 and list(latent_layers(pl_module.model)):
            raise RuntimeError("stopped by the test")

    with monkeypatch.context() as patch:
        patch.setattr(Progress, "on_train_epoch_start", on_train_epoch_start)
        with pytest.raises(RuntimeError, match="stopped by the test"):
            train(tiny_config(*TWO, folder=first))
    assert (first / "activations" / "stage.json").is_file()
    assert not (first / "result.json").exists()
    resume = f"resume={first}/both/checkpoints/last.ckpt"
    assert train(tiny_config(*TWO, resume, folder=second)) == expected
    assert not (second / "activations").exists()
    names = [s["name"] for s in json.loads((second / "result.json").read_text())["stages"]]
    assert names == ["activations", "both"]
    resume = f"resume={whole}/activations/checkpoints/last.ckpt"
    assert train(tiny_config(*TWO, resume, folder=tmp_path / "third")) == expected


def test_one_command_trains_both_steps(tmp_path):
    overrides = ("stages=two_step", "debug=quick", "logger=none")
    done = subprocess.run(
        [sys.executable, "-m", "experiments.train", *overrides, f"hydra.run.dir={tmp_path}/run"],
        cwd=CONFIGS.parent, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.index("stage 1 of 2: activations") < done.stdout.index("stage 2 of 2: both")
    kept = OmegaConf.load(tmp_path / "run" / "both" / ".hydra" / "overrides.yaml")
    assert list(kept)[:3] == list(overrides)


def test_a_sweeps_job_is_checked_before_it_has_a_folder():
    with initialize_config_dir(version_base="1.3", config_dir=str(CONFIGS)):
        cfg = compose("train", overrides=[*TINY, *TWO, "name=test"])
    _stages.check(cfg)
    with open_dict(cfg):
        cfg.stages.both.quantizer = {"input": "aprox_sign"}
    with pytest.raises(Problem, match="aprox_sign"):
        _stages.check(cfg)


def test_a_mapping_with_a_target_replaces_and_others_merge(tiny_config):
    cfg = tiny_config(
        "stages={a: {optimizer: {lr: 0.5}}, b: {model: {_target_: lowbit.models.LeNet}}}"
    )
    a, b = _stages.plan(cfg).values()
    assert a.optimizer.lr == 0.5
    assert a.optimizer._target_ == cfg.optimizer._target_
    assert b.model == {"_target_": "lowbit.models.LeNet"}
    assert b.optimizer.lr == cfg.optimizer.lr


def test_an_error_in_the_last_stage_shows_before_the_first_trains(tiny_config, tmp_path):
    with pytest.raises(Problem, match="aprox_sign"):
        train(tiny_config(*TWO, "+stages.both.quantizer={input: aprox_sign}"))
    assert not (tmp_path / "run" / "activations").exists()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["stages={first: 3}"], "stages maps a name to what the stage changes"),
        (["stages={}"], "stages maps a name to what the stage changes"),
        (
            ["stages={first: {quantizr: {weight: null}}}"],
            r"stages.first.quantizr: .* did you mean 'quantizer'",
        ),
        (["stages={first: {quantizer: {weigth: null}}}"], "did you mean 'quantizer.weight'"),
        (["stages={first: {xyzzy: 1}}"], "has no 'xyzzy'; it has seed"),
        (["stages=real_to_binary"], "recipe.teacher: .*Classify has no teacher; give recipe=dis"),
        ([*TWO, "resume=x/checkpoints/last.ckpt"], "STAGE one of activations, both"),
    ],
)
def test_stages_that_are_none_are_refused(overrides, message, tiny_config):
    with pytest.raises(Problem, match=message):
        train(tiny_config(*overrides))


def test_a_start_with_other_quantizers_takes_all_but_theirs(tiny_config, tmp_path):
    train(tiny_config("quantizer=float", "debug=quick", folder=tmp_path / "float"))
    start = f"start={tmp_path}/float/checkpoints/last.ckpt"
    begin = ("debug=quick", "optimizer.lr=0.0", "packed=false")
    train(tiny_config("quantizer=lsq", start, *begin, folder=tmp_path / "lsq"))
    before, after = saved(tmp_path / "float"), saved(tmp_path / "lsq")
    assert all(torch.equal(v, after[k]) for k, v in before.items() if k.endswith(".weight"))
    assert any(key.endswith("weight_quantization.step") for key in after)
    # And back: the steps have no place in a binary network.
    start = f"start={tmp_path}/lsq/checkpoints/last.ckpt"
    train(tiny_config("quantizer=binary", start, *begin, folder=tmp_path / "binary"))
    with pytest.raises(Problem, match=r"start: the checkpoint .* is of another model"):
        train(tiny_config("model.hidden=[8,8]", start, *begin, folder=tmp_path / "other"))


def test_the_chain_of_real_to_binary(tiny_config, tmp_path):
    train(tiny_config("quantizer=float", "debug=quick", folder=tmp_path / "teacher"))
    _stages._keep(tiny_config("quantizer=float", folder=tmp_path / "teacher"))
    chain = (
        "recipe=distill", "stages=real_to_binary", "trainer.max_epochs=2",
        f"recipe.teacher.checkpoint={tmp_path}/teacher/checkpoints/best.ckpt",
        "recipe.hard=1.0", "recipe.soft=3.0", "packed=false",
    )  # fmt: skip
    cfg = tiny_config(*chain)
    train(cfg)
    run = tmp_path / "run"
    kept = {n: OmegaConf.load(run / n / ".hydra" / "config.yaml") for n in cfg.stages}
    assert [kept[n].quantizer.input for n in kept] == ["tanh", "sign", "sign"]
    assert [kept[n].quantizer.weight for n in kept] == [None, None, "sign"]
    teachers = [kept[n].recipe.teacher.checkpoint for n in kept]
    assert teachers[1:] == [f"{run}/{n}/checkpoints/best.ckpt" for n in ("real", "activations")]
    assert [kept[n].start for n in kept] == [None, None, teachers[2]]
    assert [kept[n].recipe.soft for n in kept] == [3.0, 3.0, 0.8]
    assert kept["both"].optimizer.lr == 2e-4
