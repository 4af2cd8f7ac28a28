"""Loggers beside metrics.csv: what they are told, and what is said where they are absent."""

import csv
import importlib.util

import pytest
from matplotlib.figure import Figure
from pytorch_lightning.loggers import TensorBoardLogger

from experiments import _draw, loggers
from experiments._app import Problem
from experiments.train import train

QUICK = ("debug=quick", "packed=false")


def needs(*packages):
    absent = [package for package in packages if importlib.util.find_spec(package) is None]
    return pytest.mark.skipif(bool(absent), reason=f"{', '.join(absent)}: not installed")


@pytest.mark.parametrize(
    ("logger", "package"), [("wandb", "wandb"), ("mlflow", "mlflow"), ("mlflow", "alembic")]
)
def test_a_logger_that_is_not_installed_is_one_message(logger, package, tiny_config, monkeypatch):
    find = importlib.util.find_spec

    def without(name, *rest):
        if name == package:
            return None
        return find(name, *rest) or object()

    monkeypatch.setattr(importlib.util, "find_spec", without)
    cfg = tiny_config(*QUICK, f"logger={logger}")
    with pytest.raises(Problem) as raised:
        train(cfg)
    said = str(raised.value)
    assert said.startswith(f"logger.{logger}: logger={logger} needs the package {package}")
    assert 'pip install -e ".[loggers]"' in said


@pytest.mark.parametrize("logger", ["wandb", "mlflow"])
def test_tensorboard_stays_beside_the_others(logger, config):
    assert set(config(f"logger={logger}").logger) == {"tensorboard", logger}


@needs("wandb")
def test_wandb_offline_keeps_curves_configuration_and_last_metrics(tiny, tmp_path, monkeypatch):
    import wandb

    told = {"config": {}, "history": [], "summary": {}}
    monkeypatch.setenv("WANDB_SILENT", "true")
    finished = []
    original = wandb.sdk.wandb_run.Run.finish

    def finish(run, *arguments, **options):
        told["config"] = dict(run.config)
        told["summary"] = dict(run.summary)
        finished.append(run)
        return original(run, *arguments, **options)

    monkeypatch.setattr(wandb.sdk.wandb_run.Run, "finish", finish)
    words = (*QUICK, "logger=wandb", "logger.wandb.offline=true", "logger.tensorboard=null")
    metrics = tiny(*words)
    assert list((tmp_path / "run" / "wandb").glob("offline-run-*/run-*.wandb"))
    assert told["config"]["seed"] == 0
    assert told["config"]["model"]["_target_"] == "lowbit.models.MLP"
    assert told["summary"]["train/loss"] > 0
    assert told["summary"]["final/test/accuracy"] == pytest.approx(metrics["test/accuracy"])
    # The next job of a sweep must not go on with this run.
    assert finished
    assert wandb.run is None


@needs("mlflow")
def test_mlflow_has_curves_configuration_last_metrics_and_pictures(tiny, tmp_path, monkeypatch):
    # Files, because making a database takes seconds: that one is the slow test below.
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    store = (tmp_path / "store").as_uri()
    mlflow_run(tiny, tmp_path, store, "callbacks=[default,pictures]", "callbacks.curves=null")


@pytest.mark.slow
@needs("mlflow", "sqlalchemy", "alembic")
def test_mlflow_keeps_it_in_a_file_of_sqlite(tiny, tmp_path):
    mlflow_run(
        tiny, tmp_path, f"sqlite:///{tmp_path}/new/mlflow.db", "callbacks=[default,pictures]"
    )


def mlflow_run(tiny, tmp_path, store, *words):
    from mlflow.tracking import MlflowClient

    options = (
        "logger=mlflow",
        f"logger.mlflow.tracking_uri={store}",
        f"logger.mlflow.artifact_location={(tmp_path / 'artifacts').as_uri()}",
        "logger.tensorboard=null",
    )
    metrics = tiny(*QUICK, *options, *words)
    client = MlflowClient(tracking_uri=store)
    (experiment,) = [e for e in client.search_experiments() if e.name == "test"]
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.run_name == "seed 0"
    assert run.info.status == "FINISHED"
    assert run.data.params["optimizer/lr"]
    assert run.data.metrics["final/test/accuracy"] == pytest.approx(metrics["test/accuracy"])
    with (tmp_path / "run" / "metrics.csv").open() as file:
        (row,) = csv.DictReader(file)
    assert run.data.metrics["train/loss"] == pytest.approx(float(row["train/loss"]))
    pictures = {a.path for a in client.list_artifacts(run.info.run_id, "pictures")}
    assert "pictures/signs.png" in pictures


def test_a_picture_reaches_tensorboard_as_it_is(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    figure, (axes,) = _draw.grid(1, 1, 2.0, 1.0, "title")
    assert isinstance(figure, Figure)
    axes.plot([0, 1], [0, 1])
    _draw.save(figure, tmp_path / "x.png")
    logger = TensorBoardLogger(tmp_path, name=None, version="tb")
    loggers.add_picture([logger], figure, tmp_path / "x.png", 7)
    logger.finalize("success")
    events = EventAccumulator(str(tmp_path / "tb")).Reload()
    (image,) = events.Images("pictures/x")
    assert image.step == 7
    width, height = figure.get_size_inches() * figure.dpi
    assert (image.width, image.height) == (int(width), int(height))
