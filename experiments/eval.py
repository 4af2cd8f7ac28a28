"""Test a trained checkpoint: ``python -m experiments.eval checkpoint=runs/…/best.ckpt``."""

from __future__ import annotations

from omegaconf import DictConfig

from experiments import _app


def evaluate(cfg: DictConfig) -> dict[str, float]:
    """Test the weights of ``cfg.checkpoint`` on its run's validation and test data."""
    from experiments import _build, _checkpoint, _report

    with _app.clear_errors():
        trained = _checkpoint.config_of(cfg.checkpoint, cfg.config)
        trained.merge_with({"trainer": cfg.trainer, "threads": cfg.threads, "data": cfg.data})
        run = _build.for_test(trained)
        _checkpoint.load_weights(run.recipe, cfg.checkpoint)
    metrics = _report.test_metrics(run)
    if run.trainer.is_global_zero:
        _report.show_metrics(metrics, title=str(cfg.checkpoint))
    return metrics


if __name__ == "__main__":
    from experiments.eval import evaluate as task

    _app.start(task, "eval")
