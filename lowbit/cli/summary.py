"""Show every layer of a network: bits, shapes, parameters, bytes, multiply-adds, kernel.

examples:
  python -m lowbit summary QuickNet --set input_quantization=sign weight_quantization=sign
  python -m lowbit summary runs/…/checkpoints/best.ckpt
  python -m lowbit summary best.safetensors --csv layers.csv
"""

from __future__ import annotations

import argparse
from pathlib import Path

import lowbit
from lowbit.cli import _load, _options, _output
from lowbit.cli._errors import user_errors


def add(parser: argparse.ArgumentParser) -> None:
    _options.add_network(parser)
    _options.add_shape(parser)
    parser.add_argument("--csv", type=Path, metavar="FILE", help="write it as CSV, too")
    _options.add_json(parser)


def run(options: argparse.Namespace) -> int:
    loaded = _load.load(options.network, options.model, options.set)
    shape = _options.shape_for(options, loaded.shape)
    with user_errors(ValueError):
        found = lowbit.summary(loaded.model, shape)
    if options.csv is not None:
        with user_errors(OSError, prefix=f"cannot write {options.csv}: "):
            found.to_csv(options.csv)
    if options.json:
        _output.print_json(found.as_dict())
    elif _output.in_colour() and _output.fits(table := found.rich_table()):
        _output.print_rich(table)
    else:
        print(found)
    return 0
