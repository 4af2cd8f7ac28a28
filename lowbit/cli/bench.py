"""Time a network as trained, without quantizers, and converted, taking turns in one run.

examples:
  python -m lowbit bench runs/…/checkpoints/best.ckpt
  python -m lowbit bench QuickNet --set input_quantization=sign weight_quantization=sign --batch 1

Times are of the processor, which other programs do not lengthen: medians, and ratios the medians of
those of each round. In several threads they are the least of the clock's. Inputs are noise.
"""

from __future__ import annotations

import argparse
from typing import Any

import torch
from torch import Tensor, nn

from lowbit import kernels
from lowbit.cli import _load, _options, _output
from lowbit.cli._conversion import converted, why_nothing
from lowbit.cli._errors import UserError, user_errors
from lowbit.cli._machine import processor_name
from lowbit.cli._race import float_twin, speed
from lowbit.convert.int8 import is_prepared

WORDS = {
    "float": "float, without quantizers",
    "trained": "as trained, quantizers in float",
    "packed": "packed",
    "int8": "int8",
    "dynamic": "dynamic int8",
}


def add(parser: argparse.ArgumentParser) -> None:
    _options.add_network(parser)
    _options.add_shape(parser)
    parser.add_argument(
        "--batch",
        nargs="+",
        type=_options.positive,
        default=[64, 1],
        metavar="N",
        help="inputs in a call (default: 64 1)",
    )
    parser.add_argument(
        "--threads", type=_options.positive, default=1, metavar="N", help="of torch (default: 1)"
    )
    parser.add_argument(
        "--seconds", type=_options.seconds, default=2.0, help="for each batch (default: 2)"
    )
    parser.add_argument("--to", choices=("packed", "dynamic"), help="(default: packed)")
    _options.add_json(parser)


def run(options: argparse.Namespace) -> int:
    loaded = _load.load(options.network, options.model, options.set)
    shape = _options.shape_for(options, loaded.shape)
    models = _models(loaded, options.to)
    torch.set_num_threads(options.threads)
    generator = torch.Generator().manual_seed(0)
    inputs = [torch.randn(size, *shape, generator=generator) for size in options.batch]
    with user_errors(RuntimeError, ValueError, prefix=f"input {'x'.join(map(str, shape))}: "):
        agreed = _agreement(models, inputs[0])
        times = [speed(models, x, options.seconds) for x in inputs]
    result = {
        "network": options.network,
        "processor": processor_name(),
        "kernel": kernels.isa(),
        "threads": options.threads,
        "input": list(shape),
        **agreed,
        "speed": times,
    }
    if options.json:
        _output.print_json(result)
    else:
        _show(result)
    return 0


def _models(loaded: _load.Loaded, kind: str | None) -> dict[str, nn.Module]:
    """What is timed, the converted one last."""
    if loaded.kind == "packed":
        return {str(loaded.description.get("converted", "packed")): loaded.model}
    conversion = converted(loaded, kind)
    if not conversion.done:
        raise UserError(why_nothing(conversion))
    models = {"trained": loaded.model, conversion.kind: conversion.model}
    if is_prepared(loaded.model):
        description = {**loaded.description, "prepare_qat": {}}
        return {"float": _load.rebuild(description).eval(), **models}
    return {"float": float_twin(loaded.model), **models}


def _agreement(models: dict[str, nn.Module], x: Tensor) -> dict[str, Any]:
    """How many inputs the converted network scores highest in another class, and by how much."""
    if "trained" not in models:
        return {}
    with torch.inference_mode():
        expected, found = models["trained"](x), list(models.values())[-1](x)
    return {
        "compared": len(x),
        "differing": int((expected.argmax(1) != found.argmax(1)).sum()),
        "largest_difference": float((expected - found).abs().max()),
    }


def _show(result: dict[str, Any]) -> None:
    threads = result["threads"]
    print(
        f"{result['processor']}, {threads} thread{'s' if threads > 1 else ''}, kernels for "
        f"{result['kernel']}, input {'x'.join(map(str, result['input']))}\n"
    )
    rows = []
    for one in result["speed"]:
        rates = one["images_per_second"]
        last = list(rates)[-1]
        for name, rate in rates.items():
            ratio = {"trained": one.get("ratio"), "float": one.get("ratio_float")}.get(name)
            times = "" if name == last or ratio is None else f"{ratio:.2f}"
            batch = f"{one['batch']}"
            rows.append(
                [batch, WORDS[name], f"{1000 * one['batch'] / rate:,.3f}", f"{rate:,.0f}", times]
            )
    titles = ["batch", "network", "ms", "inputs/s", f"{last}, times as fast"]
    if len(result["speed"][0]["images_per_second"]) == 1:  # nothing to compare it with
        titles, rows = titles[:-1], [row[:-1] for row in rows]
    _output.print_table(titles, rows)
    if "compared" in result:
        print(
            f"\n{result['compared'] - result['differing']} of {result['compared']} inputs in the "
            "same class as trained; largest difference of a score "
            f"{result['largest_difference']:.2g}"
        )
