"""Configurations composed in this process, and tiny trainings of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from experiments._app import CONFIGS

# A small network on synthetic images of 8 x 8, four steps an epoch.
TINY = (
    "~experiment",
    "data=synthetic",
    "data.image_size=8",
    "data.in_channels=1",
    "data.train_size=96",
    "data.val_size=32",
    "data.test_size=32",
    "data.batch_size=16",
    "model.hidden=[16,16]",
    "logger=none",
    "callbacks=[default]",
    "++callbacks.curves=null",
)


@pytest.fixture
def config(tmp_path: Path) -> Callable[..., DictConfig]:
    """``config(*overrides, folder=…)``: the configuration of ``train`` with these overrides."""

    def make(*overrides: str, folder: Path = tmp_path / "run") -> DictConfig:
        named = [] if any(o.startswith("name=") for o in overrides) else ["name=test"]
        with initialize_config_dir(version_base="1.3", config_dir=str(CONFIGS)):
            return compose("train", overrides=[*overrides, *named, f"folder={folder}"])

    return make


@pytest.fixture
def tiny_config(config: Callable[..., DictConfig]) -> Callable[..., DictConfig]:
    """``tiny_config(*overrides, folder=…)``: that of the tiny network."""
    return lambda *overrides, **options: config(*TINY, *overrides, **options)


@pytest.fixture
def tiny(tiny_config: Callable[..., DictConfig]) -> Callable[..., dict[str, Any]]:
    """``tiny(*overrides, folder=…)``: train the tiny network; its metrics."""

    def run(*overrides: str, **options: Any) -> dict[str, Any]:
        from experiments.train import train

        return train(tiny_config(*overrides, **options))

    return run
