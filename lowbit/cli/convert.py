"""Convert a trained network to packed bits or int8, and write it as one safetensors file.

examples:
  python -m lowbit convert runs/…/checkpoints/best.ckpt
  python -m lowbit convert best.ckpt -o digits.safetensors --keep-slower
  python -m lowbit convert float.ckpt --to int8 --calibrate training_pictures/

In Python, lowbit.load_packed(FILE) is the network again, with lowbit and torch alone.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import lowbit
from lowbit.cli import _load, _options, _output, _pictures
from lowbit.cli._conversion import KINDS, Conversion, converted, dynamic_layers, why_nothing
from lowbit.cli._errors import UserError, user_errors

BATCH = 64
EXAMPLES = 4


def add(parser: argparse.ArgumentParser) -> None:
    _options.add_network(parser, "a checkpoint (.ckpt, or a state_dict with --model)")
    parser.add_argument(
        "-o", "--output", type=Path, metavar="FILE", help="(default: beside it, .safetensors)"
    )
    parser.add_argument(
        "--to",
        choices=KINDS,
        help="packed: XNOR and popcount; int8: float layers, too; dynamic: int8 weights of linear "
        "and recurrent layers (default: what it was trained for)",
    )
    parser.add_argument(
        "--calibrate",
        nargs="+",
        type=Path,
        default=[],
        metavar="PICTURE",
        help="training pictures, files or folders, for --to int8",
    )
    parser.add_argument(
        "--fast-floats", action="store_true", help="round float convolutions in another order"
    )
    parser.add_argument(
        "--keep-slower", action="store_true", help="pack layers that are no faster so, too"
    )
    _options.add_json(parser)


def run(options: argparse.Namespace) -> int:
    path = Path(options.network)
    if not path.is_file() and options.output is None:
        raise UserError(f"{options.network} is no file to write beside: give -o FILE")
    output = options.output or path.with_suffix(".safetensors")
    if output.exists() and path.exists() and output.samefile(path):
        raise UserError(f"{output} is what is converted: give another -o FILE")
    if options.calibrate and options.to != "int8":
        raise UserError("--calibrate is of --to int8")
    loaded = _load.load(options.network, options.model, options.set)
    conversion = converted(
        loaded,
        options.to,
        _batches(options.calibrate, loaded),
        fast_floats=options.fast_floats,
        keep_slower=options.keep_slower,
    )
    if not conversion.done:
        raise UserError(why_nothing(conversion))
    config = {**loaded.description, "converted": conversion.kind}
    with user_errors(lowbit.PackedFileError, OSError):
        lowbit.save_packed(conversion.model, output, config)
    difference = _check(loaded, conversion.model, output)
    _report(options, loaded, conversion, output, difference)
    return 0


def _batches(given: list[Path], loaded: _load.Loaded) -> Iterator[Tensor]:
    if not given:
        return
    prepared = _pictures.preparation(loaded.description)
    paths = list(_pictures.find(given))
    for start in range(0, len(paths), BATCH):
        yield torch.stack([_pictures.read(p, prepared) for p in paths[start : start + BATCH]])


def _check(loaded: _load.Loaded, model: nn.Module, output: Path) -> float:
    """Load the file, and require the converted network's outputs, bit for bit, on noise.

    Returns the largest difference from the trained network's.
    """
    assert loaded.shape is not None  # only packed files may not know it
    x = torch.randn(EXAMPLES, *loaded.shape, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode(), user_errors(lowbit.PackedFileError, RuntimeError):
        expected = model(x)
        if not torch.equal(lowbit.load_packed(output)(x), expected):
            output.unlink()
            raise RuntimeError(
                f"{output} gave other outputs than what was saved, and was removed: this is a "
                "bug of lowbit, please report it"
            )
        return float((loaded.model(x) - expected).abs().max())


def _report(
    options: argparse.Namespace,
    loaded: _load.Loaded,
    conversion: Conversion,
    output: Path,
    difference: float,
) -> None:
    size, report = output.stat().st_size, conversion.report
    if options.json:
        written: dict[str, Any] = {"file": str(output), "bytes": size, "to": conversion.kind}
        layers = (
            [{"name": name, "kind": kind} for name, kind in dynamic_layers(conversion.model)]
            if report is None
            else report.to_dict()["layers"]
        )
        _output.print_json({**written, "largest_difference": difference, "layers": layers})
        return
    if report is None:
        _output.print_table(("layer", "kind"), dynamic_layers(conversion.model))
    else:
        print(report)
    first = " (of its first weights: it is not trained)" if loaded.kind == "name" else ""
    print(
        f"\n{output}: {size:,} bytes{first}; loaded again, it gives the same outputs, bit for bit"
        f"\non {EXAMPLES} inputs of noise; largest difference from the network in float: "
        f"{difference:.2g}"
    )
