"""List the quantizers, or show one: formula, arguments, facts, value and slope.

examples:
  python -m lowbit quantizers
  python -m lowbit quantizers approx_sign
  python -m lowbit quantizers lsq --set bits=2 --plot lsq.png
"""

from __future__ import annotations

import argparse
import inspect
import re
from pathlib import Path
from typing import Any

from lowbit.cli import _options, _output, _zoo
from lowbit.cli._curves import curves, in_letters
from lowbit.cli._errors import UserError, user_errors
from lowbit.quantizers import Quantizer, get
from lowbit.quantizers._registry import quantizers


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", nargs="?", metavar="NAME", help="one of them (default: list all)")
    parser.add_argument(
        "--set", nargs="+", action="extend", default=[], metavar="KEY=VALUE", help="its arguments"
    )
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw it into a PNG, SVG or PDF")
    _options.add_json(parser)


def run(options: argparse.Namespace) -> int:
    if options.name is None:
        if options.plot is not None or options.set:
            raise UserError("--plot and --set are of one quantizer: lowbit quantizers NAME …")
        rows = [facts(name) for name in quantizers.names()]
        if options.json:
            _output.print_json(rows)
        else:
            names = ("name", "bits", "made_for", "source")
            _output.print_table(
                ("name", "bits", "for", "source"), [[row[k] for k in names] for row in rows]
            )
        return 0
    with user_errors(ValueError):
        spec = {"name": options.name, **_zoo.settings(options.set)}
        quantizer = get(spec)
    assert quantizer is not None
    if options.plot is not None:
        _draw(spec, options.plot)
    if options.json:
        _output.print_json(facts(quantizer.name) | _of_instance(quantizer))
    else:
        _show(quantizer, spec)
    if options.plot is not None and not options.json:
        print(f"\ndrawn in {options.plot}")
    return 0


def facts(name: str) -> dict[str, Any]:
    """A quantizer in plain values: bits by default, what it is for, first line, source."""
    cls = quantizers.resolve(name)
    text = inspect.getdoc(cls) or ""
    source = re.search(r"^Source: (.*?)(\n\n|\Z)", text, re.MULTILINE | re.DOTALL)
    return {
        "name": name,
        "bits": get_default(name).bits,
        "made_for": cls.made_for,
        "summary": text.partition("\n")[0],
        "source": "" if source is None else " ".join(source[1].replace("``", "").split()),
    }


def get_default(name: str) -> Quantizer:
    """The quantizer of the default arguments."""
    return quantizers.make(name)


def _of_instance(quantizer: Quantizer) -> dict[str, Any]:
    return {
        "bits": quantizer.bits,
        "arguments": quantizer.spec,
        "signed": quantizer.signed,
        "levels": quantizer.levels,
        "two_level": quantizer.two_level,
        "deterministic": quantizer.deterministic,
        "pad_value": quantizer.pad_value,
        "learned": [name for name, _ in quantizer.named_parameters()],
    }


def _show(quantizer: Quantizer, spec: dict[str, Any]) -> None:
    print(f"{quantizer.name}\n\n{explained(type(quantizer))}\n")
    signature = [str(p) for p in inspect.signature(type(quantizer)).parameters.values()]
    levels = None if quantizer.levels is None else ", ".join(f"{v:g}" for v in quantizer.levels)
    learned = [name for name, _ in quantizer.named_parameters()]
    for title, value in (
        ("as made here", repr(quantizer)),
        ("arguments", ", ".join(signature) or "none"),
        ("bits", f"{quantizer.bits}, {'signed' if quantizer.signed else 'unsigned'}"),
        ("values", levels or "moved by data or parameters"),
        ("learned", ", ".join(learned) or "nothing"),
        ("for", {"either": "inputs and weights"}.get(quantizer.made_for, f"{quantizer.made_for}s")),
        ("in a layer", f'QConv2d(…, {_role(quantizer)}_quantization="{quantizer.name}")'),
        ("in a clone", f"python -m experiments.train quantizer.{_role(quantizer)}={_word(spec)}"),
    ):
        print(f"{title:13} {value}")
    drawn = curves(spec)
    print(f"\n#  value    .  slope    ({drawn.bits}, after one batch)\n\n{in_letters(drawn)}")


def explained(cls: type[Quantizer]) -> str:
    """The docstring, and the arguments where these are a parent's."""
    text = inspect.getdoc(cls) or ""
    owner = next(one for one in cls.__mro__ if "__init__" in vars(one))
    if owner is not cls and inspect.signature(cls).parameters and "\nArguments:" not in text:
        said = re.search(r"^Arguments:.*?(?=\n\n|\Z)", inspect.getdoc(owner) or "", re.M | re.S)
        text += f"\n\n{said[0]}" if said else ""
    return text.replace("``", "")


def _role(quantizer: Quantizer) -> str:
    return "input" if quantizer.made_for == "either" else quantizer.made_for


def _word(spec: dict[str, Any]) -> str:
    """The quantizer on the command line of ``experiments.train``."""
    if len(spec) == 1:
        return str(spec["name"])
    inside = ", ".join(f"{key}: {value}" for key, value in spec.items())
    return f"'{{{inside}}}'"


def _draw(spec: dict[str, Any], path: Path) -> None:
    from lowbit.cli import _plot

    with user_errors(OSError, ValueError, prefix=f"cannot write {path}: "):
        _plot.gallery([spec], path, dpi=200)
