"""The ablation in RESULTS.md: one network, and one quantizer after another in it."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser

from lowbit import quantizers

PREFIX = "ablation_"
# Role -> the quantizers that the other role's are made for.
OTHER = {"input": "weight", "weight": "input"}
FIGURE = "test/accuracy_last"


def is_ablation(experiment: Mapping[str, Any]) -> bool:
    """Whether an experiment's results are one, by its name."""
    return str(experiment["experiment"]).startswith(PREFIX)


def accuracies(experiment: Mapping[str, Any], role: str) -> dict[str, float]:
    """Quantizer -> mean accuracy of the last epoch, best first.

    Of the groups that differ from the experiment in the quantizer of this role alone.
    """
    found = {}
    for group in experiment["groups"]:
        overrides = group["overrides"]
        if len(overrides) == 1 and overrides[0].startswith(f"quantizer.{role}="):
            found[_name(overrides[0])] = group["metrics"][FIGURE]["mean"]
    return dict(sorted(found.items(), key=lambda item: (-item[1], item[0])))


def baseline(experiment: Mapping[str, Any]) -> list[float]:
    """Accuracies of the last epoch of the experiment itself, one for each seed."""
    for group in experiment["groups"]:
        if not group["overrides"]:
            return group["metrics"][FIGURE]["values"]
    return []


def missing(experiment: Mapping[str, Any], role: str) -> list[str]:
    """Quantizers to two values for this role that have no result."""
    done = accuracies(experiment, role)
    made = [quantizers.get(name) for name in quantizers.names()]
    return sorted(
        one.name
        for one in made
        if one is not None
        and one.two_level
        and one.made_for in (role, "either")
        and one.name not in done
    )


def _name(override: str) -> str:
    spec = OverridesParser.create().parse_override(override).value()
    quantizer = quantizers.get(spec)  # type: ignore[arg-type]
    return "float" if quantizer is None else quantizer.name


def section(experiment: Mapping[str, Any]) -> list[str]:
    """Lines of RESULTS.md: both roles side by side, best first."""
    name = experiment["experiment"]
    sides = {role: list(accuracies(experiment, role).items()) for role in OTHER}
    seeds = baseline(experiment)
    lines = ["", f"## {name}", "", *_words(experiment, seeds), ""]
    lines += ["| | at inputs | test | at weights | test |", "| --- | --- | --- | --- | --- |"]
    for rank in range(max(map(len, sides.values()), default=0)):
        cells = []
        for side in sides.values():
            quantizer, accuracy = side[rank] if rank < len(side) else ("", None)
            cells += [quantizer, "" if accuracy is None else f"{100 * accuracy:.2f}"]
        lines.append(f"| {rank + 1} | " + " | ".join(cells) + " |")
    for role in OTHER:
        absent = missing(experiment, role)
        if absent:
            lines += ["", f"Not run at {role}s: {', '.join(absent)}."]
    commands = [f"- `python -m experiments.train -m experiment={name} {words}`"
                for words in (f"seed={','.join(map(str, range(len(seeds))))}",
                              "sweep=binary_inputs", "sweep=binary_weights")]  # fmt: skip
    return [*lines, "", *commands]


def _words(experiment: Mapping[str, Any], seeds: list[float]) -> list[str]:
    runs = [run for group in experiment["groups"] for run in group["runs"]]
    seconds = statistics.fmean(run["seconds"] for run in runs)
    devices = ", ".join(sorted({run["device"] for run in runs}))
    commits = ", ".join(sorted({str(run["commit"])[:9] for run in runs}))
    lines = [
        "Accuracy in % of the last epoch on the test set. One quantizer differs from the",
        "experiment's own, one seed each.",
    ]
    if seeds:
        spread = f" ± {100 * statistics.stdev(seeds):.2f}" if len(seeds) > 1 else ""
        lines[-1] += (
            f" The experiment itself: {100 * statistics.fmean(seeds):.2f}{spread} over "
            f"{len(seeds)} seeds,"
        )
        lines.append("which is how far apart two rows have to be to mean something.")
    lines.append(f"{len(runs)} runs of {seconds:.0f} s on {devices}; commit {commits}.")
    return lines
