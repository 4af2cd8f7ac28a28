"""What callbacks ask of the data that a training has."""

from __future__ import annotations

import pytorch_lightning as pl

from experiments._app import Problem
from experiments.data._module import DataModule


def data_of(trainer: pl.Trainer, reader: str) -> DataModule:
    """The training's data, for the callback named ``reader``; a ``Problem`` for a foreign one."""
    data = getattr(trainer, "datamodule", None)
    if not isinstance(data, DataModule):
        raise Problem(
            f"callbacks.{reader} needs data that is a DataModule of experiments.data; got "
            f"{type(data).__name__}. callbacks.{reader}=null leaves the callback out"
        )
    return data


def validates(trainer: pl.Trainer) -> bool:
    """Whether an epoch of this training ends with a validation."""
    size = getattr(getattr(trainer, "datamodule", None), "val_size", None)
    return size != 0 and trainer.limit_val_batches != 0
