"""Loggers beside ``metrics.csv`` and TensorBoard, and what all of them are told."""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.loggers import Logger, MLFlowLogger, TensorBoardLogger, WandbLogger
from pytorch_lightning.utilities import rank_zero_only

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SQLITE = "sqlite:///"


def _need(logger: str, *packages: str) -> None:
    for package in packages:
        if importlib.util.find_spec(package) is None:
            raise ValueError(
                f"logger={logger} needs the package {package}, which is not installed: "
                'pip install -e ".[loggers]"'
            )


def wandb(**options: Any) -> WandbLogger:
    """Lightning's logger for Weights & Biases; ``offline`` keeps its files in ``save_dir``."""
    _need("wandb", "wandb")
    return WandbLogger(**options)


def mlflow(tracking_uri: str, **options: Any) -> MLFlowLogger:
    """Lightning's logger for MLflow: a server (http://…), or a file of SQLite (sqlite:///…)."""
    _need("mlflow", "mlflow")
    if tracking_uri.startswith(SQLITE):
        _need("mlflow", "sqlalchemy", "alembic")
        Path(tracking_uri.removeprefix(SQLITE)).parent.mkdir(parents=True, exist_ok=True)
    return MLFlowLogger(tracking_uri=tracking_uri, **options)


@contextlib.contextmanager
def telling(
    loggers: Sequence[Logger], cfg: DictConfig
) -> Iterator[Callable[[Mapping[str, float]], None]]:
    """Tell W&B and MLflow the configuration; gives a function that tells them the last metrics.

    These have ``final/`` before their names. Afterwards a run of W&B is closed, or the next job
    of a sweep would go on with it.
    """
    configuration = OmegaConf.to_container(cfg, resolve=True)
    others = [logger for logger in loggers if not isinstance(logger, TensorBoardLogger)]
    for logger in others:
        logger.log_hyperparams(configuration)  # type: ignore[arg-type]

    def final(metrics: Mapping[str, float]) -> None:
        for logger in others:
            logger.log_metrics({f"final/{name}": value for name, value in metrics.items()})

    try:
        yield final
    finally:
        for logger in others:
            if isinstance(logger, WandbLogger):
                _finish(logger)


@rank_zero_only
def _finish(logger: WandbLogger) -> None:
    logger.experiment.finish()


@rank_zero_only
def add_picture(loggers: Sequence[Logger], figure: Figure, path: Path, step: int) -> None:
    """Show a figure, which is in the PNG file ``path`` too, in each logger that has pictures."""
    for logger in loggers:
        if isinstance(logger, TensorBoardLogger):
            figure.canvas.draw()
            pixels = np.asarray(figure.canvas.buffer_rgba())  # type: ignore[attr-defined]
            logger.experiment.add_image(
                f"pictures/{path.stem}", pixels[..., :3], step, dataformats="HWC"
            )
        elif isinstance(logger, WandbLogger):
            logger.log_image(f"pictures/{path.stem}", [str(path)])
        elif isinstance(logger, MLFlowLogger):
            logger.experiment.log_artifact(logger.run_id, str(path), "pictures")
