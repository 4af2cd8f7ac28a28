"""The command line: Hydra with the configs of this repository, and errors in one message."""

from __future__ import annotations

import contextlib
import functools
import os
import re
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from shutil import which
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn
from hydra.errors import CompactHydraException, InstantiationException
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from experiments import _group_choice, _mistyped

CONFIGS = Path(__file__).resolve().parent.parent / "configs"
# Hydra takes plugins from packages called hydra_plugins on the path, and from nowhere else.
sys.path.append(str(Path(__file__).resolve().parent / "plugins"))


class Problem(CompactHydraException):
    """Something the user can put right: its text is printed without a traceback, exit code 1."""


@contextlib.contextmanager
def clear_errors(kind: type[Exception] = Exception, key: str = "") -> Iterator[None]:
    """Turn every error of this kind into a ``Problem`` of the same meaning.

    ``key`` names the part of the configuration that the block reads.
    ``HYDRA_FULL_ERROR=1`` still shows the whole traceback.
    """
    try:
        yield
    except InstantiationException as error:
        raise Problem(_instantiation(error)) from error
    except CompactHydraException:
        raise
    except kind as error:
        raise Problem(f"{key}: {_words(error)}" if key else _words(error)) from error


def _words(error: BaseException) -> str:
    """The text of an error, with its type where the text alone would not say enough."""
    said = isinstance(error, (ValueError, OSError, RuntimeError)) and str(error)
    return str(error) if said else f"{type(error).__name__}: {error}"


def _instantiation(error: InstantiationException) -> str:
    """What went wrong when a ``_target_`` was called: the config key, and the first cause."""
    key = re.search(r"full_key: (\S+)", str(error))
    cause: BaseException = error
    while isinstance(cause, InstantiationException) and cause.__cause__ is not None:
        cause = cause.__cause__
    words = str(error) if cause is error else _words(cause)
    return f"{key.group(1)}: {words}" if key else words


def run_name() -> str:
    """The experiment's name in paths and results; ``custom`` without one (``~experiment``)."""
    return str(HydraConfig.get().runtime.choices.get("experiment") or "custom")


def path_safe(text: str) -> str:
    """Overrides as a folder name, at most 120 characters, that needs no quotes on a command line.

    ``seed=1,model=mlp`` becomes ``seed-1_model-mlp``.
    """
    return re.sub(r"[^\w.+-]+", "_", str(text).replace("=", "-"))[:120].strip("_")


def processes(without_gpu: int) -> int:
    """How many processes ``trainer=ddp`` starts: one for each GPU, or ``without_gpu``."""
    import torch

    return torch.cuda.device_count() or without_gpu


def gpus(accelerator: str, devices: int | str) -> int | str | None:
    """How many GPUs a node needs for ``devices`` processes; None where they use the processor."""
    return None if accelerator == "cpu" else devices


OmegaConf.register_new_resolver("run_name", run_name, replace=True)
OmegaConf.register_new_resolver("path_safe", path_safe, replace=True)
OmegaConf.register_new_resolver("processes", processes, replace=True)
OmegaConf.register_new_resolver("gpus", gpus, replace=True)


class Sweep(Callback):
    """Checks every job of a sweep before the first one trains; ends with a table of them all."""

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        self._start = time.time()
        if str(config.hydra.launcher._target_).endswith(".SlurmLauncher") and not which("srun"):
            # Here too a plain exception would be a warning.
            print("error: launcher=slurm: no SLURM here, as there is no srun; launcher=submitit "
                  "starts the same jobs on this machine", file=sys.stderr)  # fmt: skip
            sys.exit(1)
        self._check_all(config)

    def _check_all(self, config: DictConfig) -> None:
        from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
        from hydra.core.override_parser.overrides_parser import OverridesParser

        from experiments import _search

        words = [f"{k}={v}" for k, v in (config.hydra.sweeper.params or {}).items()]
        words += list(config.hydra.overrides.task)
        if config.hydra.sweeper._target_.endswith(".BasicSweeper"):
            overrides = OverridesParser.create().parse_overrides(words)
            jobs = [job for batch in BasicSweeper.split_arguments(overrides, None) for job in batch]
        elif config.hydra.sweeper._target_.startswith("hydra_plugins.lowbit_"):
            jobs = _search.read(words).examples()
        else:
            jobs = []  # a sweeper that chooses as it goes
        for job in jobs:
            self._check(list(job))

    def _check(self, overrides: list[str]) -> None:
        from experiments import _build, _stages

        try:
            with clear_errors():
                cfg = hydra.compose(config_name="train", overrides=overrides)
                (_build if cfg.get("stages") is None else _stages).check(cfg)
        except CompactHydraException as error:
            # Hydra turns an exception of a callback into a warning, and would go on to train.
            words = _mistyped.explained(error, overrides, CONFIGS, "train")
            print(f"error: job {_without_key(overrides, words)}", file=sys.stderr)
            sys.exit(1)

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        from experiments import _report

        folder = Path(config.hydra.sweep.dir)
        _report.show_sweep(_report.sweep_results(folder, since=self._start), folder)

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: Any) -> None:
        """Nothing to do."""


def _without_key(overrides: list[str], words: str) -> str:
    """A job and its error, which need not name the key again: ``quantizer.input=sgn: no …``."""
    key, _, rest = words.partition(": ")
    if rest and key in map(_key, overrides):
        words = rest
    return f"{' '.join(overrides)}: {words}"


def with_old_overrides(arguments: list[str]) -> list[str]:
    """A command line with ``resume=CHECKPOINT``, completed by the overrides of that run.

    So ``resume=…`` alone continues the same training; what is given beside it wins.
    """
    given = {_key(argument): argument.partition("=")[2] for argument in arguments}
    if given.get("resume") in (None, "", "null"):
        return arguments
    saved = Path(given["resume"]).parent.parent / ".hydra" / "overrides.yaml"
    if not saved.is_file():
        return arguments
    old = [word for word in OmegaConf.load(saved) if _key(word) not in given]
    return [*old, *arguments]


def _key(override: str) -> str:
    return override.partition("=")[0].lstrip("+~")


def refuse_null_groups(arguments: list[str]) -> None:
    """Exit with a message for ``logger=null``, which Hydra answers with a traceback."""
    for argument in arguments:
        group, _, value = argument.partition("=")
        if value == "null" and (CONFIGS / group).is_dir():
            options = ", ".join(sorted(path.stem for path in (CONFIGS / group).glob("*.yaml")))
            sys.exit(f"error: {argument}: {group} is one of {options}; ~{group} leaves it out")


# Of Hydra's options, the ones without a value that leave the configuration where it is.
PLAIN_OPTIONS = {"-m", "--multirun", "-h", "--help"}


def refuse_mistyped(arguments: list[str], config_name: str) -> None:
    """Exit with a message for a key or an option that is not there, before Hydra sees it.

    Hydra would advise to add the key with a ``+``, where nothing reads it.
    """
    options = {word for word in arguments if word.startswith("-")}
    if not arguments or _whole_errors() or options - PLAIN_OPTIONS:
        return
    try:
        _mistyped.composed(arguments, CONFIGS, config_name)
    except CompactHydraException as error:
        sys.exit(f"error: {_mistyped.explained(error, arguments, CONFIGS, config_name)}")


def _whole_errors() -> bool:
    return os.environ.get("HYDRA_FULL_ERROR") == "1"


def start(task: Callable[[DictConfig], Any], config_name: str) -> None:
    """Run ``task`` with the configuration that the command line describes."""

    @functools.wraps(task)
    def one_message(cfg: DictConfig) -> Any:
        try:
            return task(cfg)
        except CompactHydraException as error:
            if _whole_errors():
                raise
            if HydraConfig.get().mode == RunMode.MULTIRUN:  # Hydra says which job it was
                raise Problem(f"error: {error}") from error
            print(f"error: {error}", file=sys.stderr)
            sys.exit(1)

    refuse_null_groups(sys.argv[1:])
    sys.argv[1:] = with_old_overrides(sys.argv[1:])
    if config_name == "train":  # an evaluation has no experiment
        sys.argv[1:] = _group_choice.spelled_out(sys.argv[1:], CONFIGS)
    refuse_mistyped(sys.argv[1:], config_name)
    hydra.main(version_base="1.3", config_path=str(CONFIGS), config_name=config_name)(one_message)()
