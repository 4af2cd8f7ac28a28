"""The folder of a run, looked at before anything is written there."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf, read_write

# What a run leaves that another one in its folder would replace; of one in stages, a level below.
LEFT = ("result.json", "checkpoints", "*/stage.json", "*/checkpoints")


def trained_in(folder: Path) -> Path | None:
    """Something of ``LEFT`` in a folder; None where no training was there."""
    return next((path for pattern in LEFT for path in folder.glob(pattern)), None)


def place_for(folder: Path) -> str | None:
    """Why nothing can be written into a folder that may not be there yet; None where it can."""
    there = next(path for path in (folder, *folder.parents) if path.exists())
    if not there.is_dir():
        return f"{there} is a file, and no folder"
    return None if os.access(there, os.W_OK | os.X_OK) else f"nothing may be written in {there}"


class NewFolder(Callback):
    """Refuses a folder in which another training was, which would lose its files to this one.

    A training that is resumed may go on in its own. Hydra writes its configuration before a run
    begins, and makes a warning of a callback's exception, so that this exits by itself.
    """

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        folder = _named(config, "hydra.run.dir")
        of_another_process = config.hydra.output_subdir is None  # of the same run
        resume = config.get("resume")
        own = resume is not None and Path(resume).resolve().is_relative_to(folder.resolve())
        if not (of_another_process or own):
            _refuse("hydra.run.dir", folder, [folder])

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        folder = _named(config, "hydra.sweep.dir")
        _refuse("hydra.sweep.dir", folder, sorted(folder.glob("*")) if folder.is_dir() else [])


def _named(config: DictConfig, key: str) -> Path:
    """The folder of a key, whose name may ask Hydra's configuration for that of the run."""
    of_hydra = HydraConfig.instance()
    before = of_hydra.cfg
    with read_write(config.hydra):
        of_hydra.set_config(config)
        try:
            return Path(OmegaConf.select(config, key)).absolute()
        finally:
            of_hydra.cfg = before


def _refuse(key: str, folder: Path, runs: Iterable[Path]) -> None:
    why = place_for(folder)
    if why is not None:
        sys.exit(f"error: {key}={folder}: {why}")
    for run in runs:
        found = trained_in(run)
        if found is not None:
            left = found.relative_to(folder)
            sys.exit(
                f"error: {key}={folder}: a training was there before ({left}); "
                "give another folder, or resume=…/checkpoints/last.ckpt to go on with it"
            )
