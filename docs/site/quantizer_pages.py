"""A page for each registered quantizer, made of its class: formula, arguments, source, plot."""

from __future__ import annotations

import inspect
import io
import re
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
from docstrings import columns, fenced, is_columns, paragraphs, prose
from torch import nn

import lowbit
from lowbit.nn import QLinear
from lowbit.quantizers import Quantizer, get, names
from lowbit.quantizers._registry import quantizers
from scripts.plot_quantizers import curves, draw

ROOT = Path(__file__).resolve().parents[2]
GALLERY = ROOT / "experiments" / "results" / "quantizers.png"
FEATURES = 256

INDEX = """# Quantizers

A quantizer is named by a string, or a mapping with its arguments, for the inputs and for the
weights of a layer. Two facts make it: its *value*, what comes out, and its *slope*, the pretended
derivative that trains through it ([how](../concepts/training.md)). Each page is made from the
class as the site is built.

![Value and slope of each quantizer](gallery.png)

"""


def shipped() -> list[str]:
    return [n for n in names() if quantizers.resolve(n).__module__.startswith("lowbit.")]


def listed() -> list[str | dict[str, str]]:
    return ["quantizers/index.md", *({name: f"quantizers/{name}.md"} for name in shipped())]


def documented(name: str) -> dict[str, list[str]]:
    """The paragraphs of its docstring: "title", "formula", "arguments", "source", "more"."""
    title, *rest = paragraphs(inspect.getdoc(quantizers.resolve(name)) or "")
    parts: dict[str, list[str]] = {"title": [title], "formula": [], "arguments": [], "source": []}
    parts["more"] = []
    for paragraph in rest:
        if is_columns(paragraph):
            parts["formula"].append(columns(paragraph))
        elif paragraph.startswith(("Arguments:", "Source:")):
            head, _, text = paragraph.partition(":")
            parts[head.lower()].append(prose(text.strip()))
        else:
            parts["more"].append(prose(paragraph))
    return parts


def source(name: str) -> str:
    return inspect.getsource(inspect.getmodule(quantizers.resolve(name)))


def plot(name: str) -> bytes:
    """Value and slope, by the panel of scripts/plot_quantizers.py."""
    figure, axes = plt.subplots(figsize=(5.2, 3.9))
    figure.subplots_adjust(0.07, 0.12, 0.98, 0.88)
    draw(axes, name)
    axes.set_xlabel("input", fontsize=8)
    axes.legend(loc="lower right", fontsize=8, frameon=False)
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=120)
    plt.close(figure)
    return file.getvalue()


def packs(quantizer: str, role: str) -> str:
    """What convert makes of a linear layer with it in that role, and sign in the other."""
    other = {"input": "weight", "weight": "input"}[role]
    spec = {f"{role}_quantization": quantizer, f"{other}_quantization": "sign"}
    layer = QLinear(FEATURES, FEATURES, bias=False, **spec)
    (row,) = lowbit.convert(nn.Sequential(layer)).report
    if not row.packed:
        return f"stays in float: {prose(row.why)}"
    planes = row.bits.split("x")[0 if role == "weight" else 1]
    return f"packs, in {planes} plane{'s' if planes != '1' else ''} of bits"


def facts(name: str) -> list[str]:
    quantizer = get(name)
    assert isinstance(quantizer, Quantizer)
    levels = [f"{level:g}" for level in quantizer.levels or ()]
    rows = {
        "its source quantizes": {"either": "inputs and weights"}.get(
            quantizer.made_for, f"{quantizer.made_for}s"
        ),
        "bits": "full precision" if quantizer.bits == 32 else str(quantizer.bits),
        "values": ", ".join(levels) or "by data or parameters",
        "padding of a convolution": f"{quantizer.pad_value:g}",
        "as weights beside `sign` inputs": packs(name, "weight"),
        "as inputs beside `sign` weights": packs(name, "input"),
    }
    aliases = re.search(r"@register\(.*?, (.*)\)", source(name))
    if aliases is not None:
        rows["also called"] = aliases[1].replace('"', "`")
    head = ["| with default arguments | |", "|---|---|"]
    return head + [f"| {what} | {is_} |" for what, is_ in rows.items()]


def arguments(name: str) -> list[str]:
    parameters = inspect.signature(quantizers.resolve(name)).parameters.values()
    rows = [
        f"| `{p.name}` | {'' if p.default is p.empty else f'`{p.default!r}`'} |" for p in parameters
    ]
    return ["| argument | default |", "|---|---|", *rows] if rows else []


def use(name: str) -> list[str]:
    """How it is named in code and on the command line, where its source has it."""
    made_for = quantizers.resolve(name).made_for
    role = "input" if made_for == "either" else made_for
    other = "input" if role == "weight" else "weight"
    lines = [f'QLinear(256, 256, {role}_quantization="{name}", {other}_quantization="sign")']
    given = next(iter(inspect.signature(quantizers.resolve(name)).parameters.values()), None)
    if given is not None and given.default is not given.empty:
        spec = {"name": name, given.name: given.default}
        spelled = str(spec).replace("'", '"')
        lines.append(
            f'QLinear(256, 256, {role}_quantization={spelled}, {other}_quantization="sign")'
        )
    shell = f"python -m experiments.train quantizer.{role}={name}"
    return [fenced("\n".join(lines), "python"), "", fenced(shell, "bash")]


def page(name: str) -> str:
    parts = documented(name)
    file = quantizers.resolve(name).__module__.replace(".", "/") + ".py"
    lines = [f"# {name}", "", prose(parts["title"][0]), ""]
    lines += [f"![Value and slope of {name} from -2 to 2]({name}.png)", ""]
    lines += [*"\n\n".join(parts["formula"] + parts["more"]).splitlines(), ""]
    table = arguments(name)
    if table:
        lines += ["## Arguments", "", *table, "", *parts["arguments"], ""]
    lines += ["## Facts", "", *facts(name), "", "## Use", "", *use(name), ""]
    lines += ["## Source", "", *parts["source"], ""]
    lines += [f'??? quote "{file}"', ""]
    lines += [
        f"    {line}".rstrip() for line in fenced(source(name).rstrip(), "python").splitlines()
    ]
    return "\n".join(lines) + "\n"


def index() -> str:
    rows = ["| name | for | bits | what | source |", "|---|---|---|---|---|"]
    for name in shipped():
        parts = documented(name)
        bits = curves(name).bits
        what = prose(parts["title"][0]).replace("\n", " ")
        origin = " ".join(parts["source"]).replace("\n", " ")
        role = quantizers.resolve(name).made_for
        rows.append(f"| [{name}]({name}.md) | {role} | {bits} | {what} | {origin} |")
    return INDEX + "\n".join(rows) + "\n"


def pages() -> dict[str, str | bytes]:
    made: dict[str, str | bytes] = {"quantizers/index.md": index()}
    made["quantizers/gallery.png"] = GALLERY.read_bytes()
    for name in shipped():
        made[f"quantizers/{name}.md"] = page(name)
        made[f"quantizers/{name}.png"] = plot(name)
    return made
