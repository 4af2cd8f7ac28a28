"""Train one network, or sweep over many: ``python -m experiments.train --help``."""

from __future__ import annotations

import time
from pathlib import Path

from omegaconf import DictConfig

from experiments import _app


def train(cfg: DictConfig) -> dict[str, float]:
    """Train as ``cfg`` says, in one go or in ``stages``; returns the metrics."""
    from experiments import _processes, _stages

    with _processes.of_one_job(), _processes.ended_by_signal():
        if cfg.get("stages") is None:
            return train_once(cfg)
        return _stages.train(cfg, lambda stage: train_once(stage, announced=True))


def train_once(cfg: DictConfig, announced: bool = False) -> dict[str, float]:
    """Train, test the best and the last weights, report; returns the metrics."""
    from pytorch_lightning.utilities.exceptions import MisconfigurationException

    from experiments import _build, _int8, _packed, _report, loggers
    from experiments.provenance import source
    from experiments.results import write_result

    folder = Path(cfg.folder)
    start = time.perf_counter()
    code = source()
    with _app.clear_errors():
        run = _build.build(cfg, folder)
    if run.trainer.is_global_zero and not announced:
        _report.announce(cfg)
    with loggers.telling(run.trainer.loggers, cfg) as tell:
        with _app.clear_errors(MisconfigurationException):
            run.trainer.fit(run.recipe, run.data, ckpt_path=run.resume, weights_only=True)
        metrics = _report.final_metrics(run)
        tell(metrics)
    if run.trainer.is_global_zero:
        result = _report.result(cfg, run, metrics, code, time.perf_counter() - start)
        write_result(folder, result)
        if cfg.packed and not hasattr(run.recipe, "prepared"):  # whose model becomes int8
            result["packed"] = _packed.at_the_end(run)
            write_result(folder, result)
        if cfg.int8:
            result["int8"] = _int8.at_the_end(run, cfg)
            write_result(folder, result)
        _report.show(result, folder)
    return metrics


if __name__ == "__main__":
    # Imported under its own name, so that a sweep's other processes find the function there.
    from experiments.train import train as task

    _app.start(task, "train")
