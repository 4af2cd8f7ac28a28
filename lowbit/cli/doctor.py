"""Say what lowbit finds on this machine: versions, kernels, processor, packages, what to mend.

examples:
  python -m lowbit doctor
  python -m lowbit doctor --json

Ends with 0 where lowbit is usable, with or without compiled kernels, else with 1.
"""

from __future__ import annotations

import argparse
import platform
import warnings
from typing import Any

import torch
from torch import nn

import lowbit
from lowbit import kernels
from lowbit.cli import _options, _output
from lowbit.cli._machine import compiler, processor_name
from lowbit.cli._optional import PACKAGES, installed, version
from lowbit.kernels import _library, cuda, int8
from lowbit.nn import QConv2d


def add(parser: argparse.ArgumentParser) -> None:
    _options.add_json(parser)


def run(options: argparse.Namespace) -> int:
    found = examine()
    if options.json:
        _output.print_json(found)
    else:
        _show(found)
    return 0 if found["usable"] else 1


def examine() -> dict[str, Any]:
    """All that is found, in plain values; ``problems`` are what can be mended, and how."""
    problems = []
    chosen, trial = "", ""
    try:
        chosen = kernels.isa()
        trial = _trial()
    except (ValueError, RuntimeError) as error:
        trial = str(error)
    if trial:
        problems.append(trial)
    if not installed("safetensors"):
        problems.append("packed files need the package safetensors: pip install safetensors")
    usable = not problems
    why_not = _library.load()
    if why_not is not None:
        problems.append(f"plain torch runs in place of compiled kernels, slowly: {why_not}")
    elif kernels.isas() == ("scalar",):
        problems.append("kernels are compiled for no instruction set of this processor")
    return {
        "usable": usable,
        "lowbit": lowbit.__version__,
        "torch": str(torch.__version__),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "processor": processor_name(),
        "kernels": "compiled" if why_not is None else "plain torch",
        "instruction_sets": list(kernels.isas()),
        "instruction_set": chosen,
        "int8": "oneDNN" if int8.available() else f"lowbit alone: {int8.why_not()}",
        "threads": torch.get_num_threads(),
        "compiler": compiler(),
        "gpu": _gpus(),
        "packages": {
            entry.name: {"version": version(entry), "use": entry.use} for entry in PACKAGES
        },
        "problems": problems,
    }


def _trial() -> str:
    """What is wrong with a packed convolution's outputs; "" where they are the trained one's."""
    layer = QConv2d(
        64, 32, 3, padding=1, input_quantization="sign", weight_quantization="sign"
    ).eval()
    x = torch.randn(2, 64, 8, 8)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of plain torch, which has its own line
        packed = lowbit.convert(nn.Sequential(layer), keep_slower=True).model
        same = torch.allclose(packed(x), layer(x), rtol=1e-5, atol=1e-5)
    return "" if same else "a packed convolution gives other outputs than the trained one"


def _gpus() -> list[str]:
    """Each GPU by its name, and whether packed networks run on it."""
    found = []
    for i in range(torch.cuda.device_count()):
        able = torch.cuda.get_device_capability(i) >= cuda.CAPABILITY
        found.append(torch.cuda.get_device_name(i) + ("" if able else ", training only"))
    return found


def _show(found: dict[str, Any]) -> None:
    sets = [
        f"{name} (in use)" if name == found["instruction_set"] else name
        for name in found["instruction_sets"]
    ]
    lines = {
        "lowbit": found["lowbit"],
        "torch": found["torch"],
        "python": f"{found['python']}, {found['system']}",
        "processor": found["processor"],
        "kernels": f"{found['kernels']}: {', '.join(sets)}",
        "int8": found["int8"],
        "threads": found["threads"],
        "compiler": found["compiler"] or "none",
        "GPU": ", ".join(found["gpu"]) or "none (training and packed networks can use one)",
    }
    for title, value in lines.items():
        print(f"{title:10} {value}")
    print()
    rows = [
        (name, entry["version"] or "-", entry["use"]) for name, entry in found["packages"].items()
    ]
    _output.print_table(("optional", "version", "for"), rows)
    missing = [name for name, entry in found["packages"].items() if entry["version"] is None]
    if missing:
        print(f"\nmissing ones: pip install {' '.join(missing)}")
    for problem in found["problems"]:
        print(f"\nto mend: {problem}")
    print("\nlowbit is usable here" if found["usable"] else "\nlowbit is not usable here")
