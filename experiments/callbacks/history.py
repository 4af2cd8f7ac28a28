"""One row of figures per epoch: ``metrics.csv``."""

from __future__ import annotations

import csv
import math
import warnings
from pathlib import Path
from typing import Any

import pytorch_lightning as pl

from experiments._app import Problem
from lowbit._beside import beside


class History(pl.Callback):
    """Writes all logged metrics after each epoch into ``path``, a CSV.

    Rows travel in the checkpoint: the file of a resumed run, and what it tells the loggers,
    begin with the epochs of the run it continues.
    """

    def __init__(self, path: str) -> None:
        self.path = Path(path)
        self.rows: list[dict[str, float]] = []
        self._restored = 0
        self._warned = False

    def state_dict(self) -> dict[str, Any]:
        return {"rows": [dict(row) for row in self.rows]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.rows = [dict(row) for row in state_dict["rows"]]
        self._restored = len(self.rows)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        for row in self.rows[: self._restored]:
            figures = {k: v for k, v in row.items() if k not in ("epoch", "step")}
            for logger in trainer.loggers:
                logger.log_metrics({**figures, "epoch": row["epoch"]}, int(row["step"]))

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        row: dict[str, float] = {"epoch": trainer.current_epoch, "step": trainer.global_step}
        row |= {name: float(value) for name, value in sorted(trainer.callback_metrics.items())}
        self.rows = [r for r in self.rows if r["epoch"] != row["epoch"]] + [row]
        if trainer.is_global_zero:
            self._write()
            self._warn(row)

    def _warn(self, row: dict[str, float]) -> None:
        loss = row.get("train/loss", 0.0)
        if not math.isfinite(loss) and not self._warned:
            self._warned = True
            warnings.warn(
                f"the training loss of epoch {row['epoch']} is {loss}; a smaller rate "
                "(optimizer.lr=…) or trainer.gradient_clip_val=1 may keep it finite, and "
                "trainer.detect_anomaly=true says where it begins",
                stacklevel=2,
            )

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        # A finished training that is resumed has no epoch more.
        if trainer.is_global_zero and self.rows and not self.path.is_file():
            self._write()

    def _write(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        columns = list(dict.fromkeys(name for row in self.rows for name in row))
        with beside(self.path) as other, other.open("w", newline="") as file:
            writer = csv.DictWriter(file, columns)
            writer.writeheader()
            writer.writerows(self.rows)


def rows_of(trainer: pl.Trainer, reader: str) -> list[dict[str, float]]:
    """The rows of the training's ``History``, for the callback named ``reader``."""
    for callback in trainer.callbacks:
        if isinstance(callback, History):
            return callback.rows
    raise Problem(
        f"callbacks.{reader} draws what callbacks.history keeps, which is left out; "
        f"callbacks.{reader}=null leaves the picture out too"
    )
