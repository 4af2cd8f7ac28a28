"""The best and the last weights of a run."""

from __future__ import annotations

import os
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.plugins.io import TorchCheckpointIO
from pytorch_lightning.utilities.exceptions import SIGTERMException
from torch import Tensor

from experiments.callbacks._data import validates
from lowbit._beside import beside


class WholeFiles(TorchCheckpointIO):
    """Writes a checkpoint in the folder it is for, and then renames it.

    Lightning's own writes it in the folder of temporary files, from where it is copied over the
    old one, bit by bit, where that is another file system: stopped then, a run has neither.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None
    ) -> None:
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        with beside(path) as file:
            torch.save(checkpoint, file)


class Checkpoint(pl.callbacks.ModelCheckpoint):
    """Keeps ``best.ckpt`` (highest ``monitor``) and ``last.ckpt`` in ``folder``, each epoch.

    Of equals the latest is best: a small validation set has many, and rates fall with time.
    Without validation, best is the last. A resumed run takes the best of the run it continues
    along into its own folder, so that it ends with what an uninterrupted run would have.

    ``seconds_before`` is how long the trainings took that this one goes on with, up to the
    checkpoint it has of them.
    """

    def __init__(self, folder: str, monitor: str = "val/accuracy", mode: str = "max") -> None:
        super().__init__(
            dirpath=folder,
            filename="best",
            monitor=monitor,
            mode=mode,
            save_top_k=1,
            save_on_train_epoch_end=True,
            enable_version_counter=False,
            auto_insert_metric_name=False,
        )
        self.seconds_before = 0.0
        self._start = time.perf_counter()

    @property
    def _last(self) -> Path:
        return Path(self.dirpath or ".") / "last.ckpt"

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        super().setup(trainer, pl_module, stage)
        if type(trainer.strategy.checkpoint_io) is TorchCheckpointIO:
            trainer.strategy.checkpoint_io = WholeFiles()
        if not validates(trainer):
            self.monitor = None

    def check_monitor_top_k(self, trainer: pl.Trainer, current: Tensor | None = None) -> bool:
        equal = current is not None and bool(current == self.best_model_score)
        return equal or super().check_monitor_top_k(trainer, current)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        super().on_train_epoch_end(trainer, pl_module)
        # Lightning's own save_last leaves out the epochs that are not best.
        trainer.save_checkpoint(self._last)

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        # A finished training that is resumed has no epoch that would leave one.
        old = trainer.ckpt_path
        if trainer.is_global_zero and old is not None and not self._last.is_file():
            self._last.parent.mkdir(parents=True, exist_ok=True)
            with beside(self._last) as file:
                shutil.copyfile(old, file)

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        super().on_exception(trainer, pl_module, exception)
        stopped = isinstance(exception, (KeyboardInterrupt, SIGTERMException))
        if stopped and trainer.is_global_zero:
            resume = f"resume={os.path.relpath(self._last)} goes on"
            there = self._last.is_file()
            print(f"stopped; {resume if there else 'no epoch was finished'}", file=sys.stderr)

    def state_dict(self) -> dict[str, Any]:
        seconds = self.seconds_before + time.perf_counter() - self._start
        return {**super().state_dict(), "seconds": seconds}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        here = Path(self.dirpath or ".")
        best = Path(state_dict["best_model_path"])
        if best.is_file() and best.resolve() != (here / best.name).resolve():
            here.mkdir(parents=True, exist_ok=True)
            with beside(here / best.name) as file:
                shutil.copyfile(best, file)

        def moved(path: str) -> str:
            return str(here / Path(path).name) if path else path

        state = dict(state_dict, dirpath=self.dirpath)
        for key in ("best_model_path", "kth_best_model_path"):
            state[key] = moved(state[key])
        state["best_k_models"] = {moved(k): v for k, v in state["best_k_models"].items()}
        super().load_state_dict(state)
        self.seconds_before = state_dict.get("seconds", 0.0)  # older checkpoints have none
