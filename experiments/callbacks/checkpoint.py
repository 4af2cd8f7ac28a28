"""The best and the last weights of a run."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from torch import Tensor


class Checkpoint(pl.callbacks.ModelCheckpoint):
    """Keeps ``best.ckpt`` (highest ``monitor``) and ``last.ckpt`` in ``folder``, each epoch.

    Of equals the latest is best: a small validation set has many, and rates fall with time.
    Without validation, best is the last. A resumed run takes the best of the run it continues
    along into its own folder, so that it ends with what an uninterrupted run would have.
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

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        super().setup(trainer, pl_module, stage)
        if getattr(trainer.datamodule, "val_size", None) == 0:
            self.monitor = None

    def check_monitor_top_k(self, trainer: pl.Trainer, current: Tensor | None = None) -> bool:
        equal = current is not None and bool(current == self.best_model_score)
        return equal or super().check_monitor_top_k(trainer, current)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        super().on_train_epoch_end(trainer, pl_module)
        # Lightning's own save_last leaves out the epochs that are not best.
        trainer.save_checkpoint(Path(self.dirpath or ".") / "last.ckpt")

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        super().on_exception(trainer, pl_module, exception)
        last = Path(self.dirpath or ".") / "last.ckpt"
        if isinstance(exception, KeyboardInterrupt) and trainer.is_global_zero and last.is_file():
            print(f"stopped; resume={os.path.relpath(last)} goes on", file=sys.stderr)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        here = Path(self.dirpath or ".")
        best = Path(state_dict["best_model_path"])
        if best.is_file() and best.resolve() != (here / best.name).resolve():
            here.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(best, here / best.name)

        def moved(path: str) -> str:
            return str(here / Path(path).name) if path else path

        state = dict(state_dict, dirpath=self.dirpath)
        for key in ("best_model_path", "kth_best_model_path"):
            state[key] = moved(state[key])
        state["best_k_models"] = {moved(k): v for k, v in state["best_k_models"].items()}
        super().load_state_dict(state)
