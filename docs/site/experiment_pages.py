"""Pages on the experiments: what each file of configs/experiment opens with, results, speed."""

from __future__ import annotations

import importlib
import inspect
import re

from docstrings import fenced, paragraphs, prose
from omegaconf import OmegaConf

from experiments._app import CONFIGS
from experiments._published import opening
from experiments.results import FOLDER
from scripts.update_readme import sentences, speed

RECIPES = """# Experiments

An experiment is a file of `configs/experiment`: ten to twenty lines that differ from
`configs/train.yaml`. `python -m experiments.train experiment=NAME` runs it, anything in it can be
overridden on the command line, and what it opens with is printed as it begins. This page is made
from those files.

## Training methods

`recipe=NAME` chooses one.

"""

SPEED = """# Speed

Measured by `scripts/bench_packed.py`, whose record is
`experiments/results/benchmarks/packed.json`.

"""


def dataset(name: str) -> str:
    """The data set of an experiment, or of the one that it starts from."""
    text = (CONFIGS / "experiment" / f"{name}.yaml").read_text(encoding="utf-8")
    data = re.search(r"override /data: (\w+)", text)
    parent = re.search(r"^  - (\w+)$", text, re.MULTILINE)
    if data is not None:
        return data[1]
    return dataset(parent[1]) if parent is not None else "digits"


def first_sentence(target: str) -> str:
    module, _, name = target.rpartition(".")
    doc = inspect.getdoc(getattr(importlib.import_module(module), name)) or ""
    return prose(paragraphs(doc)[0])


def methods() -> list[str]:
    lines = ["| recipe | what |", "|---|---|"]
    for path in sorted((CONFIGS / "recipe").glob("*.yaml")):
        config = OmegaConf.load(path)
        if "_target_" in config:
            what = first_sentence(config["_target_"]).replace("\n", " ")
        else:  # a variant of another
            what = f"`{config['defaults'][0]}`, with values of its own"
        lines.append(f"| `{path.stem}` | {what} |")
    return lines


def experiment(name: str) -> list[str]:
    """Its heading, what it opens with and its file."""
    head = opening(name)
    fields = sentences(head)
    path = CONFIGS / "experiment" / f"{name}.yaml"
    code = fenced(path.read_text(encoding="utf-8").rstrip(), "yaml")
    return [
        f"### {name}",
        "",
        prose(" ".join(head[:fields])),
        "",
        *fenced("\n".join(head[fields:])).splitlines(),
        "",
        f'??? quote "configs/experiment/{name}.yaml"',
        "",
        *(f"    {line}".rstrip() for line in code.splitlines()),
        "",
    ]


def recipes() -> str:
    by_data: dict[str, list[str]] = {}
    for path in sorted((CONFIGS / "experiment").glob("*.yaml")):
        by_data.setdefault(dataset(path.stem), []).append(path.stem)
    lines = [*methods(), ""]
    for data, names in sorted(by_data.items()):
        lines += [f"## On {data}", ""]
        for name in names:
            lines += experiment(name)
    return RECIPES + "\n".join(lines) + "\n"


def linked(text: str) -> set[str]:
    """The files that a page of the results folder shows or links to, as paths below it."""
    targets = re.findall(r"\]\(([^)\s#]+)\)", text)
    return {path for path in targets if "://" not in path}


def pages() -> dict[str, str | bytes]:
    text = (FOLDER / "RESULTS.md").read_text(encoding="utf-8")
    made: dict[str, str | bytes] = {
        "experiments.md": recipes(),
        "results.md": text,
        "speed.md": SPEED + speed() + "\n",
    }
    for path in sorted(linked(text)):
        made[path] = (FOLDER / path).read_bytes()
    return made
