"""What the user can put right ends in one message and exit code 1, before any training."""

import os
import subprocess
import sys

import pytest
import torch
from hydra.conf import HydraConf
from hydra.errors import MissingConfigException
from omegaconf import OmegaConf

from experiments._app import CONFIGS, Problem
from experiments._folder import NewFolder
from experiments.eval import evaluate
from experiments.train import train


class Unsafe:
    """Runs a command when it is unpickled."""

    def __reduce__(self):
        return os.system, ("touch executed",)


def command(*arguments, cwd, module="train"):
    return subprocess.run(
        [sys.executable, "-m", f"experiments.{module}", *arguments],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(CONFIGS.parent), "HYDRA_FULL_ERROR": "0"},
        capture_output=True,
        text=True,
        timeout=120,
    )


def trained_folders(folder):
    return [*folder.rglob("checkpoints"), *folder.rglob("metrics.csv")]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["quantizer.input=aprox_sign"], "did you mean 'approx_sign'"),
        (["quantizer.weight={name:swish_sign,betta:10}"], "betta"),
        (["quantizer.gradient_cancellation_threshold=-1"], "at least 0"),
        (["quantizer.gradient=dorefa_gradiant"], "quantizer.gradient: .*'dorefa_gradient'"),
        (["quantizer.input=dorefa_gradient"], "give quantizer.gradient=dorefa_gradient"),
        (
            ["quantizer.weight=dorefa_gradient"],
            "quantizer.weight: dorefa_gradient rounds gradients",
        ),
        (["quantizer.gradient=lsq"], "quantizer.gradient: .*keeps .*step"),
        (
            ["recipe=quantization_aware", "quantizer=int8", "quantizer.gradient=sign"],
            "quantizer.gradient='sign': .* has no layer for it",
        ),
        (["quantizer.gradient_cancellation_threshold=true"], "got True"),
        (["seed=null"], "seed is a whole number"),
        (["seed=4294967296"], "seed is at most 4294967295"),
        (["~optimizer"], "optimizer is left out, .* give adam, adamw, bop, sgd"),
        (["callbacks=[]"], "callbacks.checkpoint has options but no _target_"),
        (["spread=0"], "spread is a number above 0"),
        (["spread=wide"], "got 'wide'"),
        (["threads=0"], "threads is a whole number"),
        (["trainer.max_epochs=0"], "max_epochs is a whole number of at least 1"),
        (["trainer.max_epochs=ten"], "got 'ten'"),
        (["scheduler.factory.warmup=-1"], "scheduler: .* at least 0; got -1"),
        (["scheduler.factory.warmup=nan"], "scheduler: .* at least 0; got nan"),
        (["scheduler.factory.epochs=0"], "scheduler: .*epochs is a number above 0; got 0"),
        (["scheduler.factory.final=-1"], "scheduler: .*final is a number of at least 0; got -1"),
        (["scheduler=inverse", "scheduler.factory.decay=-2"], "decay is .* of at least 0; got -2"),
        (["optimizer.lr=fast"], "optimizer: lr is a number of at least 0; got 'fast'"),
        (["optimizer.lr=null"], "optimizer: lr is a number of at least 0; got None"),
        (["optimizer.lr=inf"], "optimizer: lr is a number of at least 0; got inf"),
        (["optimizer.weight_decay=nan"], "optimizer: weight_decay is .* at least 0; got nan"),
        (["recipe.mixup=nan"], "recipe: recipe.mixup.* at least 0; got nan"),
        (["trainer.gradient_clip_val=-1"], "gradient_clip_val is a number of at least 0; got -1"),
        (["trainer.accumulate_grad_batches=0"], "accumulate_grad_batches is a whole number"),
        (["trainer.limit_train_batches=0"], "limit_train_batches is a number above 0; got 0"),
        (["packed=maybe"], "packed is true or false in a training; got 'maybe'"),
        (["published=3"], "published is a mapping of value, .* got 3"),
        (["data.val_size=5000"], "data: cannot take 5000 of 1257 images"),
        (["data.val_size=1256"], "data: 1 images make no step of 1 x 64 images"),
        (["data.limit=1"], "data: 1 images make no step of 1 x 64 images"),
        (["data.batch_size=5000"], "data: .* images make no step of 1 x 5000 images"),
        (["data.batch_size=64.0"], "batch_size of Digits is a whole number .* got 64.0"),
        (["data.batch_size=null"], "batch_size of Digits is a whole number .* got None"),
        (["data.drop_last='no'"], "drop_last of Digits is true or false; got 'no'"),
        (["data.augment=2"], "augment of Digits is true or false.*; got 2"),
        (["recipe.loss=hinge"], "cross_entropy, squared_hinge_mean"),
        (["recipe.label_smoothing=1"], r"in \[0, 1\)"),
        (["~experiment", "model=mlp", "model.hidden=[]"], "model: hidden needs"),
        (["+optimizer.rest.lrr=1"], "lrr"),
        (["+lr=0.1"], "no 'lr'; did you mean 'optimizer.lr'?"),
        (["+quantizer.inputs=sign"], "no 'quantizer.inputs'; did you mean 'quantizer.input'?"),
        (["+model/padding=1"], "no 'model/padding'; did you mean 'model.padding'?"),
        (["optimizer.latent=null"], "no claim on trainable parameters"),
        (["data=mnist", "data.root=absent", "data.download=false"], "data.root="),
        (["data.limit=0"], "limit of Digits"),
        (["resume=absent.ckpt"], "no checkpoint at absent.ckpt"),
    ],
)
def test_the_message_names_the_value_and_the_way_out(overrides, message, config, tmp_path):
    with pytest.raises(Problem, match=message):
        train(config(*overrides))
    assert trained_folders(tmp_path) == []


@pytest.mark.parametrize("damage", ["garbage", "truncated", "unsafe", "no_weights", "other_model"])
def test_a_checkpoint_that_cannot_be_used_is_refused(damage, tiny, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "bad.ckpt"
    if damage == "garbage":
        path.write_bytes(b"not a checkpoint")
        message = "damaged"
    elif damage == "truncated":
        torch.save({"state_dict": {"w": torch.ones(1000)}}, path)
        path.write_bytes(path.read_bytes()[:2000])
        message = "damaged"
    elif damage == "unsafe":
        torch.save({"state_dict": {}, "x": Unsafe()}, path)
        message = "could run code"
    elif damage == "no_weights":
        torch.save({"weights": 1}, path)
        message = "no 'state_dict'"
    else:
        torch.save({"state_dict": {"w": torch.ones(3)}}, path)
        message = "of another model"
    with pytest.raises(Problem, match=message):
        tiny(f"resume={path}")
    assert not (tmp_path / "executed").exists()
    assert trained_folders(tmp_path) == []


def test_what_torch_says_of_another_model_is_not_cut_within_a_word():
    from experiments import _checkpoint

    said = "Error:\n\tkeys: " + "one, " * 100 + "\n" + "\tsize mismatch of a layer.\n" * 9
    brief = _checkpoint._brief(RuntimeError(said))
    assert brief.startswith("Error: keys: one, one, ")
    assert "one, … size mismatch of a layer. size mismatch of a layer. … and 7 more" in brief


def test_eval_needs_a_checkpoint_and_its_configuration(tmp_path):
    def cfg(checkpoint):
        return OmegaConf.create({"checkpoint": checkpoint, "config": None, "pretrained": None})

    with pytest.raises(Problem, match="which checkpoint"):
        evaluate(cfg(None))
    torch.save({"state_dict": {}}, tmp_path / "x.ckpt")
    with pytest.raises(Problem, match="no configuration at"):
        evaluate(cfg(str(tmp_path / "x.ckpt")))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["-m", "quantizer.input=sign,aprox_sign", "seed=0,1"],
            "error: job quantizer.input=aprox_sign seed=0: no quantizer named 'aprox_sign'; did "
            "you mean 'approx_sign'",
        ),
        (
            ["trainer.max_epoch=3"],
            "error: a configuration has no 'trainer.max_epoch'; did you mean 'trainer.max_epochs'?",
        ),
        (
            ["-m", "quantizer.inputs=sign,approx_sign"],
            "error: job quantizer.inputs=sign: a configuration has no 'quantizer.inputs'; did you "
            "mean 'quantizer.input'?",
        ),
        (["-m", "+lr=1,2", "seed=0"], "error: job +lr=1 seed=0: a configuration has no 'lr'"),
        (
            ["callbacks=[default,emma]"],
            "error: no callbacks named 'emma'; did you mean 'ema'? known: cancelled_gradients, ",
        ),
        (["scheduler=null"], "multistep, none, step; ~scheduler leaves it out"),
    ],
)
def test_the_command_ends_with_one_message_and_exit_code_1(arguments, message, tmp_path):
    done = command(*arguments, cwd=tmp_path)
    assert done.returncode == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr + done.stdout
    assert trained_folders(tmp_path) == []


def test_a_quantizer_in_another_role_than_its_sources_is_a_warning(config, capsys):
    from experiments import _build

    words = ["input=twn", "weight=pact", "gradient=dorefa_gradient"]
    _build.warn_of_roles(config(*(f"quantizer.{word}" for word in words)))
    lines = capsys.readouterr().err.splitlines()
    assert [line.partition(";")[0] for line in lines] == [
        "warning: quantizer.input=twn is made for weights",
        "warning: quantizer.weight=pact is made for inputs",
    ]
    _build.warn_of_roles(config("quantizer.input=lsq", "quantizer.weight=twn"))
    assert capsys.readouterr().err == ""


def test_a_key_that_another_refers_to_is_read(config):
    from experiments import _build

    _build.check_keys(config("+first=8", "seed=${first}"))
    with pytest.raises(Problem, match="no 'first'"):
        _build.check_keys(config("+first=8"))


def started(folder, **options):
    """What Hydra tells before it writes into ``folder``."""
    hydra = {"run": {"dir": str(folder)}, "sweep": {"dir": str(folder)}, "output_subdir": ".hydra"}
    made = OmegaConf.create({"hydra": HydraConf, **options})
    made.hydra = OmegaConf.merge(HydraConf, hydra, options.get("hydra", {}))
    return made


@pytest.mark.parametrize("left", ["checkpoints/last.ckpt", "result.json", "both/stage.json"])
def test_a_run_is_not_trained_over_another(left, tmp_path):
    path = tmp_path / "run" / left
    hook = NewFolder()
    hook.on_run_start(started(tmp_path / "run"))
    path.parent.mkdir(parents=True)
    path.write_text("")
    with pytest.raises(SystemExit, match="a training was there before"):
        hook.on_run_start(started(tmp_path / "run"))
    with pytest.raises(SystemExit, match=r"hydra.sweep.dir=.* a training was there before"):
        hook.on_multirun_start(started(tmp_path))
    with pytest.raises(SystemExit, match="a training was there before"):
        hook.on_run_start(started(tmp_path / "run", resume=str(tmp_path / "last.ckpt")))
    hook.on_run_start(started(tmp_path / "run", resume=str(path)))
    hook.on_run_start(started(tmp_path / "run", hydra={"output_subdir": None}))  # of DDP
    hook.on_run_start(started(tmp_path / "run2"))
    hook.on_multirun_start(started(tmp_path / "run2"))


@pytest.mark.parametrize("sweep", [(), ("-m", "seed=0")])
def test_a_folder_by_its_own_name_is_looked_at_without_a_word(sweep, tmp_path):
    done = command(*sweep, "debug=quick", "packed=false", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "NewFolder" not in done.stderr
    assert list(tmp_path.rglob("result.json"))


def test_a_folder_under_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SystemExit, match="file is a file, and no folder"):
        NewFolder().on_run_start(started(tmp_path / "file" / "run"))


def test_the_command_trains_into_no_folder_of_another_run(tmp_path):
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    done = command("hydra.run.dir=run", "debug=quick", cwd=tmp_path)
    assert done.returncode == 1
    assert "a training was there before (checkpoints)" in done.stderr
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["checkpoints"]


def test_eval_of_a_corrupt_file_ends_with_one_message_and_exit_code_1(tmp_path):
    (tmp_path / "bad.ckpt").write_bytes(b"x" * 100)
    done = command("checkpoint=bad.ckpt", cwd=tmp_path, module="eval")
    assert done.returncode == 1
    assert "cannot load the checkpoint bad.ckpt" in done.stderr
    assert "Traceback" not in done.stderr + done.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["bad.ckpt"]


@pytest.mark.parametrize("name", ["recalibrate", "pictures", "fit_whitening"])
def test_callbacks_that_read_our_data_refuse_another_module(name, tiny_config, tmp_path):
    import pytorch_lightning as pl

    from experiments import _build

    cfg = tiny_config(f"callbacks=[default,{name}]", "++callbacks.curves=null")
    run = _build.build(cfg, tmp_path)
    run.recipe.model.fit_whitening = run.recipe.model.forward
    with pytest.raises(Problem, match=f"callbacks.{name} needs .* got LightningDataModule"):
        run.trainer.fit(run.recipe, pl.LightningDataModule())


@pytest.mark.parametrize("group", ["debug", "launcher", "sweeper", "sweep"])
def test_a_group_that_is_off_by_default_refuses_a_wrong_name(group, config):
    with pytest.raises(MissingConfigException, match=f"Could not find '{group}/quik'"):
        config(f"{group}=quik")
