"""Several processes for one job of a sweep, and the exit code of one that is ended."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from unittest import mock

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from hydra.utils import get_original_cwd

# What Lightning leaves in the environment of a process that started others.
LEFT = ("MASTER_ADDR", "MASTER_PORT", "NODE_RANK", "LOCAL_RANK", "WORLD_SIZE", "PL_GLOBAL_SEED")


def _command(local_rank: int) -> tuple[Sequence[str], str]:
    """The command of a further process of this job, and the folder to run it in."""
    config = HydraConfig.get()
    command = [
        *(sys.executable, "-m", "experiments.train", *config.overrides.task),
        f'hydra.run.dir="{config.runtime.output_dir}"',
        f"hydra.job.name=train_ddp_process_{local_rank}",
        "hydra.output_subdir=null",
    ]
    return command, get_original_cwd()


@contextlib.contextmanager
def ended_by_signal() -> Iterator[None]:
    """Exit code 143 where SIGTERM ends what runs in this: Lightning's exit has 0, as if done."""
    from pytorch_lightning.utilities.exceptions import SIGTERMException

    try:
        yield
    except SIGTERMException:
        sys.exit(128 + signal.SIGTERM)


@contextlib.contextmanager
def of_one_job() -> Iterator[None]:
    """Let Lightning start processes in a job of a sweep, and leave none to the next job.

    Lightning repeats the command line, which in a sweep is that of all its jobs, or that of the
    launcher's worker. Outside sweeps this does nothing.
    """
    if not HydraConfig.initialized() or HydraConfig.get().mode != RunMode.MULTIRUN:
        yield
        return
    import torch.distributed
    from pytorch_lightning.strategies.launchers import subprocess_script

    before = {name: os.environ.get(name) for name in LEFT}
    try:
        with mock.patch.object(subprocess_script, "_hydra_subprocess_cmd", _command):
            yield
    finally:
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
