"""One progress bar for a whole training."""

from __future__ import annotations

import time
from typing import Any

import pytorch_lightning as pl
from rich import progress
from rich.console import Console


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}"


class Progress(pl.callbacks.ProgressBar):
    """A bar over all steps, with the time left and the last validation figures.

    Where the output is no terminal (a file, the processes of a sweep): a line now and then,
    ``lines`` in all.
    """

    def __init__(self, lines: int = 10) -> None:
        super().__init__()
        self.lines = lines
        self.console = Console(stderr=True)
        self._bar: progress.Progress | None = None
        self._enabled = True
        self._start = 0.0
        self._first = 0  # epoch that this process began with

    def enable(self) -> None:
        self._enabled = True

    def disable(self) -> None:
        """Called by Lightning on all processes but the first."""
        self._enabled = False

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._start, self._first = time.monotonic(), trainer.current_epoch
        if not (self._enabled and self.console.is_terminal):
            return
        self._bar = progress.Progress(
            progress.TextColumn("epoch {task.fields[epoch]}/{task.fields[epochs]}"),
            progress.BarColumn(),
            progress.TaskProgressColumn(),
            progress.TimeElapsedColumn(),
            progress.TextColumn("left"),
            progress.TimeRemainingColumn(),
            progress.TextColumn("{task.fields[figures]}"),
            console=self.console,
            transient=True,
        )
        per_epoch = trainer.num_training_batches
        self._task = self._bar.add_task(
            "train",
            total=per_epoch * (trainer.max_epochs or 0),
            completed=per_epoch * trainer.current_epoch,
            epoch=trainer.current_epoch + 1,
            epochs=trainer.max_epochs,
            figures="",
        )
        self._bar.start()

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._bar is not None:
            self._bar.update(self._task, epoch=trainer.current_epoch + 1)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any
    ) -> None:
        if self._bar is not None:
            self._bar.advance(self._task)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        metrics = trainer.callback_metrics
        figures = "  ".join(
            f"{name} {float(metrics[name]):.4f}"
            for name in ("train/loss", "val/accuracy")
            if name in metrics
        )
        if self._bar is not None:
            self._bar.update(self._task, figures=figures)
            return
        done, epochs = trainer.current_epoch + 1, trainer.max_epochs or 0
        every = max(1, epochs // self.lines)
        if self._enabled and (done % every == 0 or done == epochs):
            passed = time.monotonic() - self._start
            left = passed / (done - self._first) * (epochs - done)
            self.console.print(
                f"epoch {done}/{epochs}  {figures}  time left {_duration(left)}",
                highlight=False,
                soft_wrap=True,
            )

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._stop()

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        self._stop()

    def _stop(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
