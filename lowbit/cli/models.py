"""List the networks, or show one: its layers' plan and its arguments.

examples:
  python -m lowbit models
  python -m lowbit models resnet18
"""

from __future__ import annotations

import argparse
import inspect
from typing import Any

from lowbit.cli import _options, _output, _zoo


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", nargs="?", metavar="NAME", help="one of them (default: list all)")
    _options.add_json(parser)


def run(options: argparse.Namespace) -> int:
    names = _zoo.names() if options.name is None else [_zoo.model_class(options.name).__name__]
    rows: list[dict[str, Any]] = []
    for name in names:
        cls = _zoo.model_class(name)
        rows.append(
            {
                "name": name,
                "parameters": _zoo.count(cls),
                "input": list(_zoo.default_shape(cls, {})),
                "summary": (inspect.getdoc(cls) or "").partition("\n")[0],
                "arguments": {
                    key: parameter.default
                    for key, parameter in inspect.signature(cls).parameters.items()
                },
            }
        )
    if options.json:
        _output.print_json(rows if options.name is None else rows[0])
    elif options.name is None:
        cells = [
            (r["name"], f"{r['parameters']:,}", "x".join(map(str, r["input"])), r["summary"])
            for r in rows
        ]
        _output.print_table(("name", "parameters", "input", "what"), cells)
        print("\nparameters: of the default arguments, with 10 classes")
    else:
        _show(names[0])
    return 0


def _show(name: str) -> None:
    cls = _zoo.model_class(name)
    text = (inspect.getdoc(cls) or "").partition("\n>>>")[0].rstrip().replace("``", "")
    print(f"{name}\n\n{text}\n\narguments")
    for parameter in inspect.signature(cls).parameters.values():
        print(f"  {parameter.name} = {parameter.default!r}")
    binary = "--set input_quantization=sign weight_quantization=sign"
    takes = "weight_quantization" in inspect.signature(cls).parameters
    print(f"\npython -m lowbit summary {name}{' ' + binary if takes else ''}")
