"""``quantizer=NAME`` beside an experiment that writes its own quantizers: the command line wins."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf


def spelled_out(arguments: list[str], configs: Path) -> list[str]:
    """A command line whose ``quantizer=NAME`` holds also where the experiment would overrule it.

    Hydra lets the values in an experiment's file win over those of a group, so that
    ``experiment=recu_resnet20_cifar10 quantizer=float`` would train ReCU's quantizers and not say
    so. There the values of the group's file follow as overrides of their own, in front of the
    user's. Several names in a sweep cannot be spelled out so: exits with a message.
    """
    place = next((i for i, word in enumerate(arguments) if word.startswith("quantizer=")), None)
    if place is None:
        return arguments
    chosen = arguments[place].partition("=")[2]
    experiment = _experiment(arguments, configs)
    if experiment is None or not _writes_quantizers(experiment, configs):
        return arguments
    if "," in chosen:
        sys.exit(
            f"error: {arguments[place]}: experiment={experiment} writes its own quantizers; sweep "
            "over quantizer.input and quantizer.weight"
        )
    file = configs / "quantizer" / f"{chosen}.yaml"
    if not file.is_file():
        return arguments  # Hydra says which there are
    values = OmegaConf.to_container(OmegaConf.load(file))
    assert isinstance(values, dict)
    words = [f"quantizer.{key}={_word(value)}" for key, value in values.items()]
    return [*arguments[: place + 1], *words, *arguments[place + 1 :]]


def _word(value: Any) -> str:
    """A value as Hydra reads it from a command line: quoted where it is a text."""
    if value is None:
        return "null"
    return json.dumps(value) if isinstance(value, str) else str(value)


def _experiment(arguments: list[str], configs: Path) -> str | None:
    """The experiment of a command line, several of a sweep with commas between; None: none."""
    name: str | None = None
    for entry in OmegaConf.load(configs / "train.yaml").defaults:
        if isinstance(entry, DictConfig) and "experiment" in entry:
            name = entry.experiment
    for word in arguments:
        key, _, value = word.partition("=")
        if key == "~experiment":
            return None
        if key.lstrip("+") == "experiment":
            name = value
    return name


def _writes_quantizers(experiment: str, configs: Path) -> bool:
    """Whether the experiment's file, or one that it begins with, has values of quantizers."""
    for name in experiment.split(","):
        file = configs / "experiment" / f"{name}.yaml"
        if not file.is_file():
            continue
        cfg = OmegaConf.load(file)
        if "quantizer" in cfg:
            return True
        parents = cfg.get("defaults", ListConfig([]))
        if any(isinstance(p, str) and _writes_quantizers(p, configs) for p in parents):
            return True
    return False
