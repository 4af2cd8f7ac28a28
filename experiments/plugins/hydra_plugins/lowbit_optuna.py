"""``sweeper=optuna``: a search by Optuna instead of every combination.

Hydra finds it because of this folder's name. Its own plugin, hydra-optuna-sweeper, needs Optuna 2
of 2022, whose storages fail beside today's SQLAlchemy, and cannot ask for a parameter of a
quantizer only where that quantizer was chosen.
"""

from __future__ import annotations

import math
import shlex
import statistics
from pathlib import Path
from typing import Any

from hydra.core.plugins import Plugins
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf


class OptunaSweeper(Sweeper):
    """Trains ``trials`` choices from the space of the command line, ``parallel`` at a time.

    metric     what is made large or small (``direction``): a metric of ``result.json``; its mean
               where ``seed`` is swept
    sampler    the seed of TPE, Optuna's sampler of dependent choices
    storage    an URL of Optuna; a study found there goes on, until it has ``trials`` in all

    Leaves ``search.json`` in the sweep's folder: the best choice, and all trials. The space is
    ``experiments._search``.
    """

    def __init__(
        self,
        metric: str,
        direction: str,
        trials: int,
        parallel: int,
        sampler: int,
        storage: str | None,
        params: DictConfig | None,
    ) -> None:
        self.metric, self.direction, self.trials = metric, direction, trials
        self.parallel, self.sampler, self.storage = parallel, sampler, storage
        self.params = params
        self.launcher: Launcher | None = None

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        self.hydra_context, self.config = hydra_context, config
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> None:
        from experiments import _search

        folder = Path(self.config.hydra.sweep.dir)
        folder.mkdir(parents=True, exist_ok=True)
        OmegaConf.save(self.config, folder / "multirun.yaml")
        space = _search.read([*(f"{k}={v}" for k, v in (self.params or {}).items()), *arguments])
        study = self._study()
        launched = 0
        while (left := self.trials - _finished(study)) > 0:
            trials = [study.ask() for _ in range(min(left, self.parallel))]
            jobs = [space.jobs(trial) for trial in trials]
            batch = [job for of_trial in jobs for job in of_trial]
            self.validate_batch_is_legal(batch)
            assert self.launcher is not None
            returns = list(self.launcher.launch(batch, initial_job_idx=launched))
            launched += len(batch)
            for trial, of_trial in zip(trials, jobs, strict=True):
                trial.set_user_attr("overrides", [w for w in of_trial[0] if w not in space.seeds])
                values = [self._value(returns.pop(0).return_value) for _ in of_trial]
                _tell(study, trial, statistics.fmean(values))
        self._close(study, folder)

    def _study(self) -> Any:
        from experiments._app import Problem

        try:
            import optuna
        except ModuleNotFoundError:
            raise Problem(
                'sweeper=optuna needs the package optuna: pip install -e ".[sweeps]"'
            ) from None
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        try:
            study = optuna.create_study(
                study_name="lowbit",
                storage=self.storage,
                direction=self.direction,
                load_if_exists=True,
            )
        except ValueError as error:
            raise Problem(f"hydra.sweeper: {error}") from error
        except Exception as error:  # whatever a database's driver says
            words = str(error).splitlines()[0]
            raise Problem(f"hydra.sweeper.storage={self.storage}: {words}") from error
        # A study that goes on must not draw its first choices again.
        study.sampler = optuna.samplers.TPESampler(
            seed=self.sampler + len(study.trials), constant_liar=self.parallel > 1
        )
        return study

    def _value(self, metrics: dict[str, float]) -> float:
        from experiments._app import Problem

        if self.metric not in metrics:
            raise Problem(
                f"hydra.sweeper.metric is one of {', '.join(metrics)}; got {self.metric!r}"
            )
        return metrics[self.metric]

    def _close(self, study: Any, folder: Path) -> None:
        """Say which trial was best, and write all of them down."""
        from experiments._app import Problem
        from experiments.results import write_json

        trials = [
            {"value": t.value, "overrides": t.user_attrs.get("overrides"), "chosen": t.params}
            for t in study.trials
        ]
        done = [t for t in study.trials if t.state.name == "COMPLETE"]
        best = trials[study.best_trial.number] if done else None
        record = {"metric": self.metric, "direction": self.direction, "best": best}
        write_json(folder / "search.json", {**record, "trials": trials})
        if best is None:
            raise Problem(f"no trial has a {self.metric} that is a number: {folder}/search.json")
        words = [w for w in best["overrides"] if not w.startswith(("sweeper=", "launcher="))]
        print(f"best of {len(done)} trials: {self.metric} {best['value']:.4f}")
        print(shlex.join(["python", "-m", "experiments.train", *words]))


def _finished(study: Any) -> int:
    """Trials that ended; what a search that was killed had begun is not one."""
    return sum(trial.state.is_finished() for trial in study.trials)


def _tell(study: Any, trial: Any, value: float) -> None:
    """Tell the value of a trial. The sampler leaves out what ended in no number."""
    from optuna.trial import TrialState

    if math.isnan(value):
        study.tell(trial, state=TrialState.FAIL)
    else:
        study.tell(trial, value)
