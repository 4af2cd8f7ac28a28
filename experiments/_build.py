"""From a configuration to the objects that train: each is made, and checked, before training."""

from __future__ import annotations

import inspect
import logging
import sys
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from hydra.utils import get_class, instantiate
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.utilities import rank_zero_only
from torch import nn

import lowbit
from experiments import _checkpoint, _mistyped, _published
from experiments._app import CONFIGS, Problem, clear_errors
from experiments._numbers import above, at_least, is_number, whole
from experiments._spread import spread_weights
from experiments.callbacks.compiled import MODES, WITH_GRAPHS, Compiled
from experiments.callbacks.description import Description
from experiments.callbacks.step_graph import StepGraph
from experiments.recipes import _teacher
from lowbit.nn import quantize_gradients
from lowbit.qconfig import get_default_qconfig

# What a quantizer is for in a layer: keys of the group ``quantizer``.
ROLES = ("input", "weight", "gradient")
# How a trained model becomes int8: ranges from calibration, as it runs, or from its training.
INT8_MODES = ("static", "dynamic", "qat")

# Of NumPy's generators, which Lightning seeds too.
LARGEST_SEED = 2**32 - 1


@dataclass
class Run:
    """What one training needs."""

    recipe: pl.LightningModule
    data: pl.LightningDataModule
    trainer: pl.Trainer
    resume: str | None = None


# What Lightning says although the user has nothing to act on.
QUIET = (
    ".*does not have many workers.*",
    ".*is smaller than the logging interval.*",
    ".*exists and is not empty.*",
    ".*you defined a `validation_step` but have no `val_dataloader`.*",
    ".*GPU available but not used.*",
    ".*LeafSpec.*",
    ".*it is recommended to use `self.log.*sync_dist=True.*",
    ".*Using `DistributedSampler` with the dataloaders.*",
    ".*Total length of `.*` across ranks is zero.*",
)


def quiet() -> None:
    """Silence Lightning's notices and the warnings of ``QUIET``, nothing else."""
    for name in ("pytorch_lightning", "lightning.pytorch", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for message in QUIET:
        warnings.filterwarnings("ignore", message)


def _quantizers(cfg: DictConfig) -> dict[str, Any]:
    """What the group ``quantizer`` says, checked."""
    given = OmegaConf.to_container(cfg.quantizer, resolve=True)
    assert isinstance(given, dict)
    given.setdefault("gradient", None)  # the configurations of older checkpoints have none
    for role in ROLES:
        if isinstance(given[role], str) and given[role].startswith("{"):
            # Presets quote their mappings, or one on the command line would merge into theirs.
            given[role] = OmegaConf.to_container(OmegaConf.create(given[role]))
        try:
            made = lowbit.quantizers.get(given[role])
        except ValueError as error:
            raise Problem(f"quantizer.{role}: {error}") from error
        if made is not None and role != "gradient" and made.made_for == "gradient":
            raise Problem(
                f"quantizer.{role}: {made.name} rounds gradients, at random; give "
                f"quantizer.gradient={made.name}, and another here"
            )
    threshold = given["gradient_cancellation_threshold"]
    if threshold is not None and not (is_number(threshold) and threshold >= 0):
        raise Problem(
            "quantizer.gradient_cancellation_threshold is a number of at least 0, or null for "
            f"no cancellation; got {threshold!r}"
        )
    return given


def quantization(cfg: DictConfig) -> dict[str, Any]:
    """The three quantization arguments of a model, checked."""
    given = _quantizers(cfg)
    return {
        "input_quantization": given["input"],
        "weight_quantization": given["weight"],
        "gradient_cancellation_threshold": given["gradient_cancellation_threshold"],
    }


@rank_zero_only
def warn_of_roles(cfg: DictConfig) -> None:
    """A line for a quantizer in another place than its source has it. Papers do mix them."""
    given = _quantizers(cfg)
    for role in ROLES:
        made = lowbit.quantizers.get(given[role])
        if made is not None and made.made_for not in (role, "either"):
            print(
                f"warning: quantizer.{role}={made.name} is made for {made.made_for}s; `lowbit "
                f"quantizers` lists those for {role}s",
                file=sys.stderr,
            )


def _quantize_gradients(cfg: DictConfig, model: nn.Module) -> None:
    spec = _quantizers(cfg)["gradient"]
    if spec is None:
        return
    with clear_errors(ValueError, key="quantizer.gradient"):
        layers = quantize_gradients(model, spec)
    if layers == 0:
        raise Problem(
            f"quantizer.gradient={spec!r}: {type(model).__name__} has no layer for it, as this "
            "recipe makes it; give quantizer.gradient=null"
        )


def make_data(cfg: DictConfig) -> pl.LightningDataModule:
    """The data module: its files are there (or were downloaded), its training set is split."""
    data = instantiate(cfg.data)
    data.prepare_data()
    with clear_errors(key="data"):
        data.setup("fit")
        # Batches of no image, or more to a step than there are, show now.
        data.train_dataloader()
        data.val_dataloader()
    return data


def takes(target: str) -> set[str]:
    """The names of the arguments of a class."""
    return set(inspect.signature(get_class(target)).parameters)


def _arguments(cfg: DictConfig, data: Any, quantized: bool) -> dict[str, Any]:
    """What the network is given beside its YAML: the quantizers, and facts of the data."""
    accepted = takes(cfg.model._target_)
    facts = {name: getattr(data, name) for name in ("in_channels", "num_classes", "image_size")}
    quantizers = quantization(cfg) if quantized else {}
    ignored = [
        name for name, value in quantizers.items() if value is not None and name not in accepted
    ]
    if ignored:
        raise Problem(
            f"model: {cfg.model._target_} takes no {ignored[0]}; give quantizer=float, or another "
            "model"
        )
    arguments = {**facts, **quantizers}
    return {
        k: v for k, v in arguments.items() if k in accepted and not (k in facts and k in cfg.model)
    }


def make_model(cfg: DictConfig, data: Any, quantized: bool = True) -> nn.Module:
    """The network: its YAML, the quantizers, and the shape of the data where it asks for it.

    Not ``quantized``, it is the float one of the same names.
    """
    return instantiate(cfg.model, **_arguments(cfg, data, quantized), _convert_="all")


def description(cfg: DictConfig, recipe: pl.LightningModule, data: Any) -> dict[str, Any]:
    """What makes a trained network anew without its configuration, in plain values.

    ``model``         ``target``, its class, and ``arguments``, what it was called with
    ``input``         how a picture becomes its input: ``preprocessing`` of the data
    ``prepare_qat``   quantizers by layer where the recipe put them in, as ``lowbit.prepare_qat``
                      takes them, activation and weight; else {}
    ``weights``       "real" where latent weights are evaluated, as in stochastic BinaryConnect;
                      else "quantized"
    ``experiment``    the name of the run
    """
    own = "weight_quantization" in takes(cfg.recipe._target_)
    arguments = OmegaConf.to_container(cfg.model, resolve=True)
    assert isinstance(arguments, dict)
    target = arguments.pop("_target_")
    real = getattr(recipe, "evaluate_with", None) == "real"
    return {
        "model": {
            "target": target,
            "arguments": {**arguments, **_arguments(cfg, data, quantized=not own)},
        },
        "input": data.preprocessing(),
        "prepare_qat": OmegaConf.to_container(OmegaConf.create(getattr(recipe, "prepared", {}))),
        "weights": "real" if real else "quantized",
        "experiment": cfg.name,
    }


def make_recipe(cfg: DictConfig, data: Any) -> pl.LightningModule:
    """The Lightning module: model, loss, optimizer and scheduler.

    A recipe that takes ``input_quantization`` and ``weight_quantization`` is given the quantizers
    with a float model, and puts them in itself. One with a ``teacher`` is given that network.
    Where ``start`` names a checkpoint, the model has its weights by then.
    """
    accepted = takes(cfg.recipe._target_)
    own: dict[str, Any] = {k: v for k, v in quantization(cfg).items() if k in accepted}
    model = make_model(cfg, data, quantized=not own)
    if cfg.get("start") is not None and cfg.get("resume") is None:
        _checkpoint.load_model(model, cfg.start)
    elif cfg.get("spread") is not None:
        spread_weights(model, cfg.spread)
    if "teacher" in cfg.recipe and "teacher" not in accepted:
        raise Problem(f"recipe.teacher: {cfg.recipe._target_} has no teacher; give recipe=distill")
    if cfg.recipe.get("teacher") is not None:
        own["teacher"] = _teacher.make(cfg.recipe.teacher, data)
    recipe = instantiate(
        cfg.recipe,
        model=model,
        num_classes=data.num_classes,
        **own,
        optimizer=instantiate(cfg.optimizer, _convert_="all"),
        scheduler=instantiate(cfg.get("scheduler") or None, _convert_="all"),
        seed=cfg.seed,
    )
    _quantize_gradients(cfg, recipe.model)  # type: ignore[arg-type]
    # An unclaimed parameter or a wrong option shows now.
    with clear_errors(key="optimizer"):
        optimizer = recipe.make_optimizer(recipe.model)
    with clear_errors(key="scheduler"):
        recipe.make_scheduler(optimizer, steps_per_epoch=1)
    return recipe


def make_callbacks(cfg: Mapping[str, Any]) -> list[pl.Callback]:
    """The callbacks: ``history`` writes down what the others log, and pictures are of its rows."""
    names = [name for name in cfg if cfg[name] is not None]
    for name in names:
        if "_target_" not in cfg[name]:
            raise Problem(f"callbacks.{name} has options but no _target_: is its group chosen?")
    late = {"history": 1, "curves": 2, "pictures": 2}
    return [instantiate(cfg[name]) for name in sorted(names, key=lambda name: late.get(name, 0))]


def check_whole(name: str, value: Any, least: int) -> None:
    with clear_errors(ValueError):
        whole(name, value, least)


def check_spread(given: Any) -> None:
    if given is not None and not (is_number(given) and given > 0):
        raise Problem(f"spread is a number above 0, or null for the model's own; got {given!r}")


def check_groups(cfg: DictConfig) -> None:
    """A ``Problem`` for a group that no training does without."""
    for group in ("model", "data", "recipe", "optimizer", "trainer"):
        if "_target_" not in (cfg.get(group) or {}):  # an experiment's own values may be there
            options = ", ".join(sorted(p.stem for p in (CONFIGS / group).glob("*.yaml")))
            raise Problem(f"{group} is left out, and no training does without; give {options}")


def check_trainer(trainer: DictConfig) -> None:
    """A ``Problem`` for numbers with which a trainer would train nothing, or wrongly."""
    check_whole("trainer.max_epochs", trainer.max_epochs, 1)
    check_whole("trainer.accumulate_grad_batches", trainer.get("accumulate_grad_batches", 1), 1)
    with clear_errors(ValueError):
        if trainer.get("gradient_clip_val") is not None:
            at_least("trainer.gradient_clip_val", trainer.gradient_clip_val, 0)
        if trainer.get("limit_train_batches") is not None:
            above("trainer.limit_train_batches", trainer.limit_train_batches, 0)


def compiled(cfg: DictConfig) -> list[pl.Callback]:
    """What compiles the model as ``compile`` says: nothing, or one callback."""
    given = cfg.get("compile")
    if given is None or given is False:
        return []
    mode = "default" if given is True else given
    if mode not in MODES:
        raise Problem(f"compile is true, false, {', '.join(MODES)}; got {given!r}")
    if mode in WITH_GRAPHS and cfg.trainer.accumulate_grad_batches != 1:
        raise Problem(
            f"compile={mode} keeps gradients in the memory of its CUDA graphs, which the next "
            "batch overwrites, so that trainer.accumulate_grad_batches must be 1; got "
            f"{cfg.trainer.accumulate_grad_batches}. Give compile=true, which has no graphs"
        )
    return [Compiled(mode)]


def graphed(cfg: DictConfig) -> list[pl.Callback]:
    """What launches training steps as one CUDA graph, where ``cuda_graph`` says so."""
    given = cfg.get("cuda_graph")
    if given is None or given is False:
        return []
    if given is not True:
        raise Problem(f"cuda_graph is true or false; got {given!r}")
    trainer = cfg.trainer
    if cfg.get("compile") in WITH_GRAPHS:
        raise Problem(
            f"compile={cfg.compile} makes CUDA graphs of its own, which cuda_graph=true cannot "
            "capture; give compile=true with it, or leave cuda_graph out"
        )
    for key, found, fits in (
        ("trainer.accumulate_grad_batches", trainer.accumulate_grad_batches, 1),
        ("trainer.detect_anomaly", trainer.detect_anomaly, False),
        ("recipe.mixup", cfg.recipe.get("mixup", 0), 0),  # draws a number in each step
    ):
        if found != fits:
            raise Problem(f"cuda_graph=true takes {key}={fits} only; got {found}")
    if str(trainer.precision).startswith("16"):
        raise Problem(
            "cuda_graph=true cannot skip a step, as float16's scaling of losses does; got "
            f"trainer.precision={trainer.precision}. Give bf16-mixed or 32-true"
        )
    return [StepGraph()]


def check_int8(asked: DictConfig, recipe: DictConfig) -> None:
    """A ``Problem`` where the options of int8 are none, or not those of a model of this recipe."""
    mode = asked.get("int8")
    if mode is None:
        return
    if mode not in INT8_MODES:
        raise Problem(f"int8 is {', '.join(INT8_MODES)} or null; got {mode!r}")
    check_whole("calibration", asked.calibration, 1)
    if asked.qconfig is not None:
        with clear_errors(ValueError, key="qconfig"):
            get_default_qconfig(asked.qconfig)
    prepared = "weight_quantization" in takes(recipe._target_)
    if prepared != (mode == "qat"):
        way = "int8=qat" if prepared else "int8=static or dynamic"
        raise Problem(f"int8={mode}: a model of {recipe._target_} becomes int8 by {way}")


def prepare(cfg: DictConfig) -> tuple[pl.LightningDataModule, pl.LightningModule]:
    """Seed, then make data and recipe."""
    quiet()
    check_groups(cfg)
    check_whole("seed", cfg.seed, 0)
    if cfg.seed > LARGEST_SEED:
        raise Problem(f"seed is at most {LARGEST_SEED}; got {cfg.seed}")
    check_trainer(cfg.trainer)
    if not isinstance(cfg.get("packed", False), bool):
        raise Problem(f"packed is true or false in a training; got {cfg.packed!r}")
    check_spread(cfg.get("spread"))
    if cfg.threads is not None:
        check_whole("threads", cfg.threads, 1)
        torch.set_num_threads(cfg.threads)
    quantization(cfg)
    check_int8(cfg, cfg.recipe)
    compiled(cfg)
    graphed(cfg)
    _published.check(cfg.get("published"))
    _published.own_band(cfg.get("accept"), cfg.get("published"))
    data = make_data(cfg)
    pl.seed_everything(cfg.seed, workers=True, verbose=False)
    return data, make_recipe(cfg, data)


def check_keys(cfg: DictConfig, config_name: str = "train") -> None:
    """A ``Problem`` for a key that was added with a ``+`` and that nothing reads.

    Not for configurations of checkpoints, which may be older than the code.
    """
    key = _mistyped.unread(cfg, _mistyped.known_keys(CONFIGS, config_name))
    if key is not None:
        paths = [path for path in _mistyped.paths_of(cfg) if path != key]
        raise Problem(_mistyped.no_such_key(key, paths))


def check(cfg: DictConfig) -> None:
    """Raise what ``build`` would raise for this configuration, but make no folder and no log."""
    check_keys(cfg)
    _, recipe = prepare(cfg)
    if cfg.resume is not None:
        _checkpoint.check_resume(recipe, cfg)


@rank_zero_only
def _say_if_trained(cfg: DictConfig, done: int) -> None:
    """A line where, after ``done`` epochs, only the tests of a training are left to do."""
    if done == cfg.trainer.max_epochs:
        print(
            f"note: {cfg.resume} has already trained {done} of {done} epochs, so that it is only "
            "tested; give trainer.max_epochs=… to train on",
            file=sys.stderr,
        )


def build(cfg: DictConfig, folder: Path) -> Run:
    """Everything for training into ``folder``."""
    check_keys(cfg)
    data, recipe = prepare(cfg)
    warn_of_roles(cfg)
    if cfg.resume is not None:
        _say_if_trained(cfg, _checkpoint.check_resume(recipe, cfg))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "result.json").unlink(missing_ok=True)  # of an earlier run in the same folder
    loggers = [instantiate(one) for one in (cfg.get("logger") or {}).values() if one is not None]
    trainer = instantiate(
        cfg.trainer,
        logger=loggers,
        callbacks=[
            *make_callbacks(cfg.get("callbacks") or {}),
            Description(description(cfg, recipe, data)),
            *graphed(cfg),
            *compiled(cfg),  # last: it looks at hooks that others have put in place
        ],
        default_root_dir=str(folder),
    )
    return Run(recipe, data, trainer, cfg.resume)


def for_test(cfg: DictConfig) -> Run:
    """Data, recipe and a trainer that writes nothing. A recipe has no teacher then."""
    without: dict[str, Any] = {"compile": False, "cuda_graph": False}
    if cfg.recipe.get("teacher") is not None:
        without["recipe"] = {"teacher": None}
    cfg = OmegaConf.merge(cfg, without)  # type: ignore[assignment]
    data, recipe = prepare(cfg)
    trainer = instantiate(
        cfg.trainer,
        logger=False,
        callbacks=[],
        enable_checkpointing=False,
        enable_progress_bar=sys.stdout.isatty(),
        max_epochs=1,
    )
    return Run(recipe, data, trainer)
