"""Test a trained checkpoint: ``python -m experiments.eval checkpoint=runs/…/best.ckpt``.

With ``packed=true`` the model is converted as well, and compared with the trained one.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import DictConfig

from experiments import _app

if TYPE_CHECKING:
    from experiments._build import Run

# For each of the timings.
SECONDS = 1.0


def evaluate(cfg: DictConfig) -> dict[str, float]:
    """Test the weights of ``cfg.checkpoint`` on its run's validation and test data.

    Where ``cfg.packed``, the metrics have ``packed/accuracy`` on the test data and
    ``packed/differing``, how many predictions differ, if any layer packs.
    """
    from experiments import _build, _checkpoint, _report

    with _app.clear_errors():
        trained = _checkpoint.config_of(cfg.checkpoint, cfg.config)
        if cfg.packed not in (False, True, "report"):
            raise ValueError(f"packed is true, false or report; got {cfg.packed!r}")
        if cfg.output is not None and not cfg.packed:
            raise ValueError(f"output={cfg.output} is of packed=true; give that too")
        trained.merge_with({"trainer": cfg.trainer, "threads": cfg.threads, "data": cfg.data})
        run = _build.for_test(trained)
        if cfg.packed and run.trainer.world_size > 1:
            raise ValueError("packed=true compares in one process: leave trainer=ddp out")
        _checkpoint.load_weights(run.recipe, cfg.checkpoint)
    metrics = _report.test_metrics(run)
    if run.trainer.is_global_zero:
        _report.show_metrics(metrics, title=str(cfg.checkpoint))
    return metrics | _compare(cfg, run, metrics) if cfg.packed else metrics


def _compare(cfg: DictConfig, run: Run, metrics: dict[str, float]) -> dict[str, float]:
    """Convert, compare, print, and write ``cfg.output``; returns the metrics of the packed."""
    from experiments import _packed, _packed_report
    from experiments.provenance import source
    from experiments.results import write_json

    code = source()
    with _app.clear_errors(ValueError):
        comparison = _packed.compare(run.recipe.model, run.data, SECONDS)
    _packed_report.show(comparison, whole=cfg.packed == "report")
    if cfg.output is not None:
        checkpoint = Path(cfg.checkpoint)
        write_json(Path(cfg.output), _packed_report.record(checkpoint, metrics, comparison, code))
    figures = comparison.figures
    if figures is None:
        return {}
    return {
        "packed/accuracy": figures["correct_packed"] / figures["images"],
        "packed/differing": figures["differing"],
    }


if __name__ == "__main__":
    from experiments.eval import evaluate as task

    _app.start(task, "eval")
