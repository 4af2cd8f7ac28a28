"""Options that several commands share."""

from __future__ import annotations

import argparse
import re

from lowbit.cli._errors import UserError

WHAT = "a model's name, a checkpoint (.ckpt, or a state_dict with --model), or a packed file"


def add_network(parser: argparse.ArgumentParser, what: str = WHAT) -> None:
    """The network, and what its file may not say."""
    parser.add_argument("network", metavar="NETWORK", help=what)
    parser.add_argument("--model", metavar="NAME", help="the model of a file of bare weights")
    parser.add_argument(
        "--set",
        nargs="+",
        action="extend",
        default=[],
        metavar="KEY=VALUE",
        help="arguments of the model: width=32 weight_quantization=sign 'channels=[8, 16]'",
    )


def add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON")


def add_shape(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--input-shape",
        type=shape,
        metavar="CxHxW",
        help="of one input, without the batch: 3x224x224 (default: what the network says)",
    )


def shape_for(options: argparse.Namespace, of_network: tuple[int, ...] | None) -> tuple[int, ...]:
    """The shape of one input: as given, or else what the network says."""
    chosen: tuple[int, ...] | None = options.input_shape or of_network
    if chosen is None:
        raise UserError(f"{options.network} does not say what its inputs are: give --input-shape")
    return chosen


def shape(text: str) -> tuple[int, ...]:
    """``3x224x224`` or ``3,224,224`` as a tuple."""
    parts = re.split(r"[x, ]+", text.strip())
    if not all(part.isdigit() and int(part) > 0 for part in parts):
        raise argparse.ArgumentTypeError(f"{text!r} is no shape such as 3x224x224")
    return tuple(map(int, parts))


def positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number of at least 1")
    return int(text)


def seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds")
    return value
