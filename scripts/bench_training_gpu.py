"""Images a second that a binary network trains on a GPU, beside its float twin.

Forward, loss, backward and SGD step with the batch on the GPU: ResNet-20, ResNet-18 and VGG-small
for 32 x 32 images and ResNet-18 for 224 x 224, with sign weights and activations, and their twins:
the same modules with torch's convolutions in place of the quantized ones. The two take turns in
one process, block by block; images a second are of the median block, the ratio is the median over
the rounds of float time over binary time. Above 1 the binary network is the faster one.

    eager           as it is
    graph           the whole step captured as a CUDA graph
    compile         the model by torch.compile, mode default
    compile+graph   the step of that captured as a CUDA graph

Memory is the peak of a step above what is there before it, what is allocated between forward and
backward, and in eager what autograd keeps for backward (each storage once, parameters left out).

    python scripts/bench_training_gpu.py --warm 8 --seconds 240 --output training_gpu.json
    python scripts/bench_training_gpu.py --only resnet20/bf16 --only eager
    python scripts/bench_training_gpu.py --device cpu      # tiny networks, to see that it runs
"""

from __future__ import annotations

import argparse
import gc
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "scripts")]
# What the first processes compile is found by the one that measures.
os.environ.setdefault("TORCHINDUCTOR_FX_GRAPH_CACHE", "1")
os.environ.setdefault("TORCHINDUCTOR_AUTOGRAD_CACHE", "1")

import torch  # noqa: E402
from _bench.training_steps import (  # noqa: E402
    ROUNDS,
    Step,
    captured,
    memory_of,
    take_turns,
    training_step,
)
from bench_training import BINARY, float_twin, kept_for_backward  # noqa: E402
from torch import Tensor, nn  # noqa: E402

import lowbit  # noqa: E402
from experiments.provenance import device_name, source  # noqa: E402
from experiments.results import write_json  # noqa: E402
from lowbit.models import ResNet, ResNet18, VGGSmall  # noqa: E402


class Network(NamedTuple):
    make: Callable[..., nn.Module]
    options: dict[str, Any]
    image: int
    classes: int


NETWORKS = {
    "resnet20": Network(ResNet, {"depth": 20, "downsample": "pad"}, 32, 10),
    "resnet18": Network(ResNet18, {}, 32, 10),
    "vgg_small": Network(VGGSmall, {}, 32, 10),
    "resnet18_224": Network(ResNet18, {"stem": "imagenet"}, 224, 1000),
}
PRECISIONS = ("bf16", "float32")
MODES = ("eager", "graph", "compile", "compile+graph")
# In the order of their worth: compiling takes long, and another batch tells little more.
PLANS = ((128, MODES), (256, ("eager", "graph")))
# How far the first loss of two modes may be apart: rounding turns a sign near 0 now and then.
TOLERANCE = {"bf16": 0.05, "float32": 0.02}


class Group(NamedTuple):
    """Cells that share their networks."""

    network: str
    precision: str
    batch: int
    modes: tuple[str, ...]

    def name(self, mode: str) -> str:
        return f"{self.network}/{self.precision}/{self.batch}/{mode}"


def groups(only: list[str]) -> list[Group]:
    """All that is to be measured; with ``only`` the cells whose names have all of these in them."""
    made = [
        Group(network, precision, batch, modes)
        for batch, modes in PLANS
        for precision in PRECISIONS
        for network in NETWORKS
    ]
    parts = [f"/{part.strip('/')}/" for part in only]
    kept = [
        g._replace(modes=tuple(m for m in g.modes if all(p in f"/{g.name(m)}/" for p in parts)))
        for g in made
    ]
    return [group for group in kept if group.modes]


class Twins:
    """The networks of a group on the device, with one batch, and the steps that train them."""

    def __init__(self, group: Group, device: torch.device) -> None:
        made = NETWORKS[group.network]
        self.cuda = device.type == "cuda"
        self.half = group.precision == "bf16"
        width = {} if self.cuda else {"width": 4}
        image, self.batch = (made.image, group.batch) if self.cuda else (32, 4)
        torch.manual_seed(0)
        binary = made.make(num_classes=made.classes, **made.options, **width, **BINARY)
        torch.manual_seed(0)
        twin = float_twin(made.make(num_classes=made.classes, **made.options, **width, **BINARY))
        layout = torch.channels_last
        self.models = {
            name: model.to(device, memory_format=layout)
            for name, model in (("binary", binary), ("float", twin))
        }
        images = torch.randn(self.batch, 3, image, image)
        self.images = images.to(device, memory_format=layout)
        self.labels = torch.randint(made.classes, (self.batch,)).to(device)
        self.start = {
            name: {key: value.clone() for key, value in model.state_dict().items()}
            for name, model in self.models.items()
        }
        self.compiled: dict[str, Callable[..., Tensor]] = {}

    def step(self, name: str, mode: str) -> Step:
        """The step of a network that starts anew."""
        model = self.models[name]
        model.load_state_dict(self.start[name])
        run: Callable[..., Tensor] = model
        if mode.startswith("compile"):
            if name not in self.compiled:
                # Inductor's code for a processor takes longer to compile than all else here.
                backend = "inductor" if self.cuda else "aot_eager"
                self.compiled[name] = torch.compile(model, backend=backend, dynamic=False)
            run = self.compiled[name]
        return training_step(model, self.images, self.labels, self.half, run)

    def kept(self, name: str) -> int:
        """Bytes that autograd keeps for backward in eager."""
        model = self.models[name]
        model.load_state_dict(self.start[name])
        with torch.autocast(self.images.device.type, torch.bfloat16, enabled=self.half):
            return kept_for_backward(model, self.images, self.labels)


def measure(group: Group, mode: str, twins: Twins, firsts: dict[str, float]) -> dict[str, Any]:
    """One cell. ``firsts`` has the first loss of each network in the modes before."""
    steps, losses, memory = {}, {}, {}
    for name in twins.models:
        step = twins.step(name, mode)
        first = float(step())
        before = firsts.setdefault(name, first)
        if not abs(first - before) <= TOLERANCE[group.precision] * abs(before):
            raise AssertionError(f"{name}: the first loss is {first}, where it was {before}")
        if twins.cuda:
            memory[name] = memory_of(step)
        steps[name] = captured(step) if mode.endswith("graph") else step
        losses[name] = {"first": first}
    times = take_turns(steps, twins.cuda, ROUNDS if twins.cuda else 2)
    for name, step in steps.items():
        losses[name]["last"] = last = float(step())
        if not last < losses[name]["first"]:
            raise AssertionError(f"{name}: the loss was {losses[name]['first']}, and is {last}")
    cell: dict[str, Any] = {
        "binary_images_per_s": round(twins.batch / times["binary"], 1),
        "float_images_per_s": round(twins.batch / times["float"], 1),
        "ratio": round(times["ratio"], 3),
        "loss": losses,
    }
    if memory:
        cell["peak_bytes"] = memory
    if mode == "eager":
        cell["kept_bytes"] = {name: twins.kept(name) for name in twins.models}
    for key in ("peak_bytes", "kept_bytes"):
        if key in cell:
            cell[key]["ratio"] = round(cell[key]["binary"] / cell[key]["float"], 3)
    return cell


def warm(chosen: list[Group], count: int, device: torch.device) -> float:
    """Compile the networks in ``count`` processes at a time, for torch's cache on disk; seconds."""
    start = time.perf_counter()
    waiting = [g for g in chosen if any(mode.startswith("compile") for mode in g.modes)]
    environment = {
        **os.environ,
        "TORCHINDUCTOR_COMPILE_THREADS": str(max(1, (os.cpu_count() or 1) // max(count, 1))),
    }
    running: list[subprocess.Popen[bytes]] = []
    for network, precision, batch, _ in waiting:
        for name in ("binary", "float"):
            while sum(process.poll() is None for process in running) >= count:
                time.sleep(0.1)
            cell = f"{network}/{precision}/{batch}"
            command = [sys.executable, __file__, "--device", str(device), "--only", cell]
            running.append(subprocess.Popen([*command, "--compile", name], env=environment))
    failed = sum(process.wait() != 0 for process in running)
    if failed:
        print(f"{failed} of {len(running)} networks could not be compiled ahead", file=sys.stderr)
    return time.perf_counter() - start


def show(name: str, cell: dict[str, Any]) -> None:
    """One line of the table."""
    memory = cell.get("kept_bytes", cell.get("peak_bytes", {})).get("ratio", "")
    print(
        f"{name:<40} {cell['float_images_per_s']:>10} {cell['binary_images_per_s']:>10} "
        f"{cell['ratio']:>7.3f} {memory:>7}",
        flush=True,
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--only", action="append", default=[], help="a part of a cell's name")
    parser.add_argument("--seconds", type=float, default=1e9, help="begin no cell after these")
    parser.add_argument("--warm", type=int, default=0, metavar="PROCESSES", help="compile in these")
    parser.add_argument("--device", default="cuda", help="cuda, or cpu for tiny networks")
    parser.add_argument("--output", type=Path, help="JSON file to write")
    parser.add_argument("--compile", choices=("binary", "float"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    begin = time.perf_counter()
    device = torch.device(arguments.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        parser.error("no CUDA device here; --device cpu runs tiny networks on the processor")
    chosen = groups(arguments.only)
    if not chosen:
        parser.error(f"no cell has {' and '.join(arguments.only)} in its name")
    torch.set_float32_matmul_precision("high")
    torch.backends.cudnn.benchmark = True
    if device.type == "cuda":
        torch.cuda.set_stream(torch.cuda.Stream())

    if arguments.compile:
        for group in chosen:
            Twins(group, device).step(arguments.compile, "compile")()
        return 0
    code = source()
    warm_s = warm(chosen, arguments.warm, device) if arguments.warm else None

    cells: dict[str, dict[str, Any]] = {}
    absent: dict[str, str] = {}
    failed = False
    print(f"{device_name(device)}, torch {torch.__version__}, images/s; memory is binary / float")
    print(f"{'':<40} {'float':>10} {'binary':>10} {'ratio':>7} {'memory':>7}")
    for group in chosen:
        twins: Twins | None = None
        firsts: dict[str, float] = {}
        for mode in group.modes:
            name = group.name(mode)
            if mode.endswith("graph") and device.type != "cuda":
                absent[name] = "CUDA graphs need a GPU"
            elif time.perf_counter() - begin > arguments.seconds:
                absent[name] = "no time was left"
            else:
                twins = twins or Twins(group, device)
                try:
                    cells[name] = measure(group, mode, twins, firsts)
                except (AssertionError, RuntimeError) as error:
                    absent[name] = f"{type(error).__name__}: {str(error).strip()[:300]}"
                    failed = True
                else:
                    show(name, cells[name])
        del twins
        torch._dynamo.reset()
        gc.collect()
        if device.type == "cuda":
            torch.cuda.empty_cache()
    for name, why in absent.items():
        print(f"not measured: {name}: {why}")
    if arguments.output is not None:
        result = {
            "command": "python scripts/bench_training_gpu.py " + " ".join(sys.argv[1:]),
            **code,
            "lowbit": lowbit.__version__,
            "torch": torch.__version__,
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),
            "device": device_name(device),
            "quantization": BINARY,
            "float32": {
                "matmul_precision": torch.get_float32_matmul_precision(),
                "convolutions_in_tf32": torch.backends.cudnn.allow_tf32,
            },
            "memory_format": "channels_last",
            "compile_s": None if warm_s is None else round(warm_s, 1),
            "seconds": round(time.perf_counter() - begin, 1),
            "cells": cells,
            "not_measured": absent,
        }
        write_json(arguments.output, result)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
