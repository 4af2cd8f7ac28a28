"""``quantizer=NAME`` beside an experiment that writes its own quantizers: the command line wins.

So do ``optimizer=NAME`` and ``scheduler=NAME``, and ``debug=NAME`` in the stages of a training.
With ``data=NAME`` it is not the data that the experiment's published figure is of, and nothing is
compared.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf

GROUPS = ("quantizer", "optimizer", "scheduler")


def spelled_out(arguments: list[str], configs: Path) -> list[str]:
    """A command line whose ``quantizer=NAME`` holds also where the experiment would overrule it.

    Hydra lets the values in an experiment's file win over those of a group, so that
    ``experiment=recu_resnet20_cifar10 quantizer=float`` would train ReCU's quantizers and not say
    so, and ``optimizer=adam`` would take SGD's rate. There the values of the group's file follow
    as overrides of their own, and what else the experiment writes there is deleted, in front of
    the user's. Several names in a sweep cannot be spelled out so: of quantizers, exits with a
    message; of the others, says what stays.
    """
    for group in GROUPS:
        arguments = _with_group(group, arguments, configs)
    return _without_published(_with_debug_in_stages(arguments, configs), configs)


def _with_debug_in_stages(arguments: list[str], configs: Path) -> list[str]:
    """With the values of ``debug=NAME`` in each stage that has a value of its own there."""
    place = next((i for i, w in enumerate(arguments) if w.startswith("debug=")), None)
    experiment = _experiment(arguments, configs)
    if place is None or experiment is None:
        return arguments
    file = configs / "debug" / f"{arguments[place].partition('=')[2]}.yaml"
    values = _leaves(_read(file)) if file.is_file() else {}
    words = [
        f"stages.{key}={_word(values[inside])}"
        for key in _written("stages", experiment, configs)
        if (inside := key.partition(".")[2]) in values
    ]
    words = [word for word in words if word not in arguments]
    return [*arguments[: place + 1], *words, *arguments[place + 1 :]]


def _without_published(arguments: list[str], configs: Path) -> list[str]:
    """With ``published=null`` behind a ``data=NAME`` that the experiment's figure is not of."""
    place = next((i for i, w in enumerate(arguments) if w.startswith("data=")), None)
    experiment = _experiment(arguments, configs)
    if place is None or experiment is None or "," in experiment:
        return arguments
    if any(word.lstrip("+~").startswith("published") for word in arguments):
        return arguments
    if arguments[place] == f"data={data_of(experiment, configs)}":
        return arguments
    return [*arguments[: place + 1], "published=null", *arguments[place + 1 :]]


def data_of(experiment: str, configs: Path) -> str | None:
    """The data set of an experiment, by its name in the group; None: that of all trainings."""
    file = configs / "experiment" / f"{experiment}.yaml"
    entries = OmegaConf.load(file).get("defaults", ListConfig([])) if file.is_file() else []
    found = None
    for entry in entries:
        if isinstance(entry, DictConfig) and "override /data" in entry:
            found = entry["override /data"]
        elif isinstance(entry, str):
            found = data_of(entry, configs) or found
    return found


def _with_group(group: str, arguments: list[str], configs: Path) -> list[str]:
    place = next((i for i, w in enumerate(arguments) if w.startswith(f"{group}=")), None)
    if place is None:
        return arguments
    chosen = arguments[place].partition("=")[2]
    experiment = _experiment(arguments, configs)
    written = {} if experiment is None else _written(group, experiment, configs)
    if not written:
        return arguments
    if "," in chosen and group == "quantizer":
        sys.exit(
            f"error: {arguments[place]}: experiment={experiment} writes its own quantizers; sweep "
            "over quantizer.input and quantizer.weight"
        )
    if "," in chosen:
        stay = ", ".join(f"{group}.{key}" for key in sorted(written))
        print(f"note: {stay} of experiment={experiment} stay with each of {arguments[place]}")
        return arguments
    file = configs / group / f"{chosen}.yaml"
    if not file.is_file():
        return arguments  # Hydra says which there are
    values = _leaves(_read(file))
    if values == {group: None}:  # scheduler=none: null as a whole
        gone, values = {key.partition(".")[0] for key in written}, {}
    else:
        gone = set(written) - set(values)
    words = [f"{group}.{key}={_word(value)}" for key, value in values.items() if value != {}]
    words += [f"~{group}.{key}" for key in sorted(gone)]
    # A run that is resumed, or a command that a result holds, has them already.
    words = [word for word in words if word not in arguments]
    return [*arguments[: place + 1], *words, *arguments[place + 1 :]]


def _read(file: Path) -> dict[str, Any]:
    values = OmegaConf.to_container(OmegaConf.load(file), resolve=False)
    assert isinstance(values, dict)
    values.pop("defaults", None)
    return values


def _leaves(values: dict[str, Any], path: str = "") -> dict[str, Any]:
    """Values by dotted path; an empty mapping is one."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict) and value:
            found |= _leaves(value, f"{path}{key}.")
        else:
            found[f"{path}{key}"] = value
    return found


def _written(group: str, experiments: str, configs: Path) -> dict[str, Any]:
    """What experiments, with commas between, and those that they begin with write of a group."""
    found: dict[str, Any] = {}
    for name in experiments.split(","):
        file = configs / "experiment" / f"{name}.yaml"
        if not file.is_file():
            continue
        parents = OmegaConf.load(file).get("defaults", ListConfig([]))
        for parent in parents:
            if isinstance(parent, str):
                found |= _written(group, parent, configs)
        own = _read(file).get(group)
        found |= _leaves(own) if isinstance(own, dict) else {}
    return found


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
