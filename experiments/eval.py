"""Test a trained checkpoint: ``python -m experiments.eval checkpoint=runs/…/best.ckpt``.

``checkpoint=RUN``, the folder of a run, is its ``checkpoints/best.ckpt``.

With ``packed=true``, or ``int8=static``, ``dynamic`` or ``qat``, the model is converted as well,
and compared with the trained one. ``pretrained=NAME`` tests a packed network of the repository,
``save=NAME`` keeps one there.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import DictConfig, OmegaConf

from experiments import _app, _folder

if TYPE_CHECKING:
    from experiments._build import Run

# For each of the timings.
SECONDS = 1.0


def evaluate(cfg: DictConfig) -> dict[str, float]:
    """Test the weights of ``cfg.checkpoint`` on its run's validation and test data.

    Where ``cfg.packed``, the metrics have ``packed/accuracy`` on the test data and
    ``packed/differing``, how many predictions differ, if any layer packs; where ``cfg.int8``,
    ``int8/accuracy`` and ``int8/differing``.
    """
    from experiments import _build, _checkpoint, _pretrained, _processes, _report

    _build.check_keys(cfg, "eval")
    if cfg.pretrained is not None:
        return _of_the_repository(cfg)
    if cfg.checkpoint is not None and Path(cfg.checkpoint).is_dir():
        best = str(Path(cfg.checkpoint) / "checkpoints" / "best.ckpt")
        cfg = OmegaConf.merge(cfg, {"checkpoint": best})  # type: ignore[assignment]
    with _app.clear_errors():
        trained = _checkpoint.config_of(cfg.checkpoint, cfg.config)
        _check(cfg, trained)
        evaluated = {"trainer": cfg.trainer, "threads": cfg.threads, "data": cfg.data}
        run = _build.for_test(OmegaConf.merge(trained, evaluated, {"start": None, "int8": None}))
        if (cfg.packed or cfg.int8) and run.trainer.world_size > 1:
            raise ValueError("models are compared in one process: leave trainer=ddp out")
        _checkpoint.load_weights(run.recipe, cfg.checkpoint)
    with _processes.ended_by_signal():
        metrics = _report.test_metrics(run)
    if run.trainer.is_global_zero:
        _report.show_metrics(metrics, title=str(cfg.checkpoint))
    if cfg.save is not None:
        with _app.clear_errors(ValueError):
            file = _pretrained.save(cfg.save, Path(cfg.checkpoint), trained, run)
        print(f"kept: {file.name}, {file.stat().st_size:,} bytes; pretrained={cfg.save} tests it")
    if cfg.packed:
        return metrics | _compare_packed(cfg, run, metrics)
    return metrics | _compare_int8(cfg, trained, run, metrics) if cfg.int8 else metrics


def _of_the_repository(cfg: DictConfig) -> dict[str, float]:
    """Test ``cfg.pretrained``, or show what there is for ``list``."""
    from experiments import _pretrained

    with _app.clear_errors():
        for key in ("checkpoint", "config", "packed", "int8", "output", "save"):
            if cfg[key]:
                raise ValueError(
                    f"pretrained={cfg.pretrained} and {key}={cfg[key]}: pretrained stands alone"
                )
        if cfg.pretrained == "list":
            _pretrained.show_all()
            return {}
        return _pretrained.evaluate(str(cfg.pretrained), cfg)


def _check(cfg: DictConfig, trained: DictConfig) -> None:
    from experiments import _build

    if cfg.packed not in (False, True, "report"):
        raise ValueError(f"packed is true, false or report; got {cfg.packed!r}")
    _build.check_int8(cfg, trained.recipe)
    if cfg.packed and cfg.int8:
        raise ValueError(f"packed={cfg.packed} and int8={cfg.int8}: one at a time")
    if cfg.save is not None and (cfg.packed or cfg.int8):
        raise ValueError(f"save={cfg.save} packs by itself: leave packed and int8 out")
    if cfg.output is None:
        return
    if not (cfg.packed or cfg.int8):
        raise ValueError(f"output={cfg.output} is of packed=true or int8=…; give one of them too")
    output = Path(cfg.output).absolute()
    why = "it is a folder" if output.is_dir() else _folder.place_for(output.parent)
    if why is not None:
        raise ValueError(f"output={cfg.output}: {why}")


def _compare_packed(cfg: DictConfig, run: Run, metrics: dict[str, float]) -> dict[str, float]:
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


def _compare_int8(
    cfg: DictConfig, trained: DictConfig, run: Run, metrics: dict[str, float]
) -> dict[str, float]:
    """Convert, compare, print, and write ``cfg.output``; returns the metrics of int8."""
    from experiments import _int8, _int8_report
    from experiments.provenance import source
    from experiments.results import write_json

    code = source()
    with _app.clear_errors(ValueError):
        twin = _int8.float_twin(run, OmegaConf.merge(trained, {"int8": cfg.int8}))
        comparison = _int8.compare(run.recipe.model, twin, run.data, cfg, SECONDS)
    _int8_report.show(comparison)
    if cfg.output is not None:
        record = _int8_report.record(cfg, trained, metrics, comparison, code)
        write_json(Path(cfg.output), record)
    figures = comparison.figures
    return {
        "int8/accuracy": figures["correct_int8"] / figures["images"],
        "int8/differing": figures["differing"],
    }


if __name__ == "__main__":
    from experiments.eval import evaluate as task

    _app.start(task, "eval")
