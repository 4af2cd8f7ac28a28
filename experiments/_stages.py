"""Training in stages: one command, each stage a change of the configuration, the next one begins
with the checkpoints of the one before.

``stages`` maps the name of each stage to what it changes, in their order. A mapping in it is
merged with the one of the configuration; one with a ``_target_`` replaces it. ``previous.best``
and ``previous.last`` are the checkpoints of the stage before, for ``start`` or
``recipe.teacher.checkpoint``.

Each stage has a folder of its own in the run's, with checkpoints, ``metrics.csv``, its
configuration and ``stage.json``, its result. The result of the run is that of the last stage.
``resume=RUN/STAGE/checkpoints/last.ckpt`` goes on with that stage, and then the ones behind it.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf, open_dict
from rich.console import Console

from experiments import _mistyped
from experiments._app import Problem, clear_errors
from experiments.results import write_result

# What of a configuration is of the whole run, and so of no stage but the last.
AT_THE_END = {"packed": False, "int8": None, "published": None, "accept": None}


def _change(into: DictConfig, change: Mapping[str, Any]) -> None:
    """Put ``change`` into a configuration, as the module says."""
    for key, value in change.items():
        old = into._get_node(key)
        merged = isinstance(value, dict) and "_target_" not in value
        if merged and isinstance(old, DictConfig) and not old._is_none():
            _change(old, value)
        else:
            into[key] = copy.deepcopy(value)


def _check_keys(name: str, change: Mapping[str, Any], cfg: DictConfig) -> None:
    """A ``Problem`` for a key that a configuration has not, of the whole or of ``quantizer``."""
    known = [*map(str, cfg), *(f"quantizer.{key}" for key in _mistyped.QUANTIZER)]
    quantizer = change.get("quantizer")
    inside = quantizer if isinstance(quantizer, dict) else {}
    for key in (*change, *(f"quantizer.{key}" for key in inside)):
        if key not in known:
            words = _mistyped.no_such_key(str(key), [*known, *_mistyped.paths_of(cfg)])
            raise Problem(f"stages.{name}.{key}: {words}")


def plan(cfg: DictConfig, checkpoints: Mapping[str, Path] | None = None) -> dict[str, DictConfig]:
    """The configuration of each stage, in order.

    ``checkpoints`` holds the folder of each stage's checkpoints. Without it there are none: what
    begins with ``previous`` is then left out, and the folder of a stage is that of the run, which
    a sweep's jobs have none of yet. That is how a run is checked before it begins.
    """
    changes = OmegaConf.to_container(cfg.stages, resolve=False)
    mapping = isinstance(changes, dict) and len(changes) > 0
    if not mapping or not all(isinstance(c, dict) for c in changes.values()):
        raise Problem(
            "stages maps a name to what the stage changes, as in "
            f"stages={{first: {{quantizer: {{weight: null}}}}, second: {{}}}}; got {changes!r}"
        )
    for name, change in changes.items():
        _check_keys(name, change, cfg)
    names, planned = [str(name) for name in changes], {}
    for number, (name, change) in enumerate(zip(names, changes.values(), strict=True)):
        made = copy.deepcopy(cfg)
        with open_dict(made):
            made.stages = None
            if number < len(names) - 1:
                made.update(AT_THE_END)
            _change(made, change)
            made.resume = None
            made.previous = {"best": None, "last": None}
            if checkpoints is not None:
                made.folder = str(checkpoints[name].parent)
            if checkpoints is not None and number > 0:
                folder = checkpoints[names[number - 1]]
                made.previous = {w: str(folder / f"{w}.ckpt") for w in ("best", "last")}
            elif _from_previous(made):
                made.recipe.teacher = None
        planned[name] = made
    return planned


def _from_previous(cfg: DictConfig) -> bool:
    teacher = cfg.recipe.get("teacher")
    return (
        teacher is not None
        and OmegaConf.is_interpolation(teacher, "checkpoint")
        and teacher.checkpoint is None
    )


def check(cfg: DictConfig) -> None:
    """Raise what a stage would raise when it begins, before the first one trains."""
    from experiments import _build

    _first(cfg)
    for stage in plan(cfg).values():
        _build.check(stage)


def _first(cfg: DictConfig) -> tuple[int, str | None]:
    """The number of the stage that trains first, and the checkpoint that it goes on from.

    That is the one of ``resume``, or the next where it is finished.
    """
    if cfg.resume is None:
        return 0, None
    names = [str(name) for name in cfg.stages]
    stage = Path(cfg.resume).resolve().parent.parent
    if stage.name not in names:
        raise Problem(
            f"resume={cfg.resume}: a run in stages resumes from the checkpoint of one, "
            f"RUN/STAGE/checkpoints/last.ckpt with STAGE one of {', '.join(names)}"
        )
    number = names.index(stage.name)
    if (stage / "stage.json").is_file() and number < len(names) - 1:
        return number + 1, None
    return number, cfg.resume


def train(cfg: DictConfig, one: Callable[[DictConfig], dict[str, float]]) -> dict[str, float]:
    """Train the stages in turn, each by ``one``; returns the metrics of the last."""
    from experiments import _report

    with clear_errors():
        check(cfg)
    names = [str(name) for name in cfg.stages]
    first, resume = _first(cfg)
    folder = Path(cfg.folder)
    checkpoints = {name: folder / name / "checkpoints" for name in names}
    if first > 0:
        old = Path(cfg.resume).resolve().parent.parent.parent
        checkpoints |= {name: old / name / "checkpoints" for name in names[:first]}
    stages = plan(cfg, checkpoints)
    metrics: dict[str, float] = {}
    if _is_first_process():
        _report.announce(cfg)
    for number, name in enumerate(names):
        stage = stages[name]
        if number < first:
            continue
        if number == first:
            stage.resume = resume
        if _is_first_process():
            line = f"stage {number + 1} of {len(names)}: {name}"
            Console().print(line, highlight=False, markup=False)
        _keep(stage)
        metrics = one(stage)
        _close(Path(stage.folder))
    _whole(folder, {name: checkpoints[name].parent / "stage.json" for name in names})
    return metrics


def _is_first_process() -> bool:
    from pytorch_lightning.utilities import rank_zero_only

    return bool(rank_zero_only.rank == 0)


def _keep(stage: DictConfig) -> None:
    """Leave the configuration and the overrides where evaluating and resuming look for them."""
    folder = Path(stage.folder) / ".hydra"
    folder.mkdir(parents=True, exist_ok=True)
    OmegaConf.save(stage, folder / "config.yaml", resolve=True)
    if HydraConfig.initialized():
        OmegaConf.save(HydraConfig.get().overrides.task, folder / "overrides.yaml")


def _close(folder: Path) -> None:
    """Name a stage's result so that nobody takes it for that of a run."""
    result = folder / "result.json"
    if result.is_file():
        result.rename(folder / "stage.json")


def _whole(folder: Path, results: Mapping[str, Path]) -> None:
    """The result of the run: that of the last stage, the seconds of all, and a line for each."""
    found = {n: json.loads(p.read_text()) for n, p in results.items() if p.is_file()}
    if not found:
        return  # of a process that writes none
    last = list(found.values())[-1]
    brief = ("metrics", "seconds", "epochs", "resumed")
    stages = [{"name": name, **{key: r[key] for key in brief}} for name, r in found.items()]
    seconds = round(sum(stage["seconds"] for stage in stages), 1)
    write_result(folder, {**last, "seconds": seconds, "stages": stages})
