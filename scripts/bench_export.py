"""Exported binary networks in onnxruntime and OpenVINO, beside lowbit's own packed ones.

    python scripts/bench_export.py
    python scripts/bench_export.py --networks QuickNet --seconds 10
    python scripts/bench_export.py --output experiments/results/benchmarks/export.json

Each network is converted, and what comes out is exported in every form: standard operators in
float, standard operators in int8 (``lowbit.export.onnx``, which both runtimes read), and OpenVINO's
BinaryConvolution (``lowbit.export.openvino``). All are given the same image and take turns, call by
call; scores are compared with the trained network's before anything is timed, and a wrong class
ends it. Printed and written: milliseconds of the processor's time for a call, which leave out what
other programs took in between (the median over the rounds, and the least); how many times lowbit's
own that is (the median of the ratios of one round); the least milliseconds of the clock; the bytes
of the file; the seconds from the file to a network that is ready; and the largest difference of a
score, over the largest score. That is rounding, or where networks add floats and take the sign of
the sum, a number close to 0 that turned its sign.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from _bench.figure import rounded
from _bench.memory import keep_freed_memory
from _bench.race import Race, Runner
from _bench.rows.networks import NETWORKS, settled, small
from bench_training import progress

import lowbit
from experiments.provenance import device_name, source
from experiments.results import write_json
from lowbit import export, kernels
from lowbit.models import VGGSmall

PACKAGES = ("torch", "onnx", "onnxruntime", "openvino")
IMAGES = 4  # that are compared
LEAST_ROUNDS = 9


def vgg() -> nn.Module:
    """Bits from layer to layer; the networks of 224 x 224 have residuals."""
    return VGGSmall(input_quantization="sign", weight_quantization="sign")


# A network, and the size of its images.
CASES: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "VGG-small": (vgg, 32),
    **{name: (make, 224) for name, make in NETWORKS.items()},
}
QUICK = {"small": (small, 32)}


class Contender:
    """A network that is ready, what its file takes, and how long it was loaded."""

    def __init__(self, call: Callable[[Tensor], Tensor], size: int, seconds: float | None) -> None:
        self.call, self.bytes, self.seconds = call, size, seconds


def in_onnxruntime(path: Path, threads: int) -> Callable[[Tensor], Tensor]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    (name,) = (value.name for value in session.get_inputs())
    return lambda x: torch.from_numpy(session.run(None, {name: x.numpy()})[0])


def in_openvino(path: Path, threads: int, shape: list[int]) -> Callable[[Tensor], Tensor]:
    import openvino

    options = {
        "INFERENCE_NUM_THREADS": threads,
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "f32",
    }
    core = openvino.Core()
    network = core.read_model(path)
    network.reshape(shape)
    request = core.compile_model(network, "CPU", options).create_infer_request()

    def call(x: Tensor) -> Tensor:
        request.infer([x.numpy()], share_inputs=True)
        return torch.from_numpy(request.get_output_tensor().data).clone()  # it is the request's

    return call


def contenders(
    packed: nn.Module, fast: nn.Module, x: Tensor, folder: Path, threads: int
) -> dict[str, Contender]:
    """All that take turns, by their names."""
    size = sum(t.numel() * t.element_size() for t in packed.state_dict().values())
    made = {
        "lowbit": Contender(packed, size, None),
        "lowbit, fast_floats": Contender(fast, size, None),
    }
    for form in ("float", "int8"):
        path = folder / f"{form}.onnx"
        export.onnx(packed, x, path, binary=form)
        for runtime, load in (
            ("onnxruntime", lambda path: in_onnxruntime(path, threads)),
            ("OpenVINO", lambda path: in_openvino(path, threads, list(x.shape))),
        ):
            made[f"{runtime}, {form}"] = loaded(load, path, path.stat().st_size)
    path = folder / "binary.xml"
    export.openvino(packed, x, path)
    size = path.stat().st_size + path.with_suffix(".bin").stat().st_size
    load = lambda path: in_openvino(path, threads, list(x.shape))  # noqa: E731
    made["OpenVINO, BinaryConvolution"] = loaded(load, path, size)
    return made


def loaded(load: Callable[[Path], Callable[[Tensor], Tensor]], path: Path, size: int) -> Contender:
    start = time.perf_counter()
    call = load(path)
    return Contender(call, size, time.perf_counter() - start)


def difference(model: nn.Module, call: Callable[[Tensor], Tensor], images: Tensor) -> float:
    """The largest of a score, over the largest score; AssertionError for another class."""
    expected = model(images)
    found = torch.cat([call(x) for x in images.split(1)])
    if not torch.equal(found.argmax(1), expected.argmax(1)):
        raise AssertionError("an exported network chooses other classes than the trained one")
    return float((found - expected).abs().max() / expected.abs().max())


def turns(runners: dict[str, Runner], seconds: float) -> tuple[Race, dict[str, float]]:
    """Processor seconds of each call in each round, and the least seconds of the clock."""
    names, rounds = list(runners), []
    clock = dict.fromkeys(names, float("inf"))
    end = time.perf_counter() + seconds
    while len(rounds) < LEAST_ROUNDS or time.perf_counter() < end:
        taken = {}
        start = len(rounds) % len(names)
        for name in names[start:] + names[:start]:
            runners[name]()  # with its weights in the caches
            processor, wall = time.process_time(), time.perf_counter()
            runners[name]()
            taken[name] = time.process_time() - processor
            clock[name] = min(clock[name], time.perf_counter() - wall)
        rounds.append(taken)
    return Race(rounds), clock


def measured(name: str, make: Any, size: int, threads: int, seconds: float) -> list[dict[str, Any]]:
    """A record for each contender."""
    torch.manual_seed(0)
    model = settled(make(), size)
    packed = lowbit.convert(model, to="packed").model
    fast = lowbit.convert(model, to="packed", fast_floats=True).model
    images = torch.randn(IMAGES, 3, size, size)
    x = images[:1]
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode(False), torch.no_grad():
        found = contenders(packed, fast, x, Path(folder), threads)
        off = {kind: difference(model, each.call, images) for kind, each in found.items()}
        runners = {kind: lambda each=each: each.call(x) for kind, each in found.items()}
        done, clock = turns(runners, seconds)
    return [
        {
            "network": name,
            "runs in": kind,
            "milliseconds": rounded(1e3 * done.median(kind)),
            "milliseconds_least": rounded(1e3 * done.minimum(kind)),
            "milliseconds_of_the_clock_least": rounded(1e3 * clock[kind]),
            "times_lowbit": rounded(done.ratio(kind, "lowbit")),
            "rounds": len(done.rounds),
            "bytes": each.bytes,
            "load_seconds": rounded(each.seconds),
            "largest_difference": rounded(off[kind]),
        }
        for kind, each in found.items()
    ]


def shown(record: dict[str, Any]) -> str:
    load = record["load_seconds"]
    return (
        f"{record['network']:<12} {record['runs in']:<28} {record['milliseconds']:>8.2f} ms "
        f"{record['times_lowbit']:>7.2f} x {record['bytes'] / 2**20:>8.2f} MiB "
        f"{'' if load is None else f'{load:.2f} s':>8} {record['largest_difference']:>9.1e}"
    )


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--networks", default="all", help=f"all, or some of {','.join(CASES)}")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=8.0, help="for each network")
    parser.add_argument("--quick", action="store_true", help="a tiny one: only see that it runs")
    parser.add_argument("--output", type=Path, help="JSON file to write")
    options = parser.parse_args(arguments)
    cases = QUICK if options.quick else CASES
    chosen = list(cases) if options.networks == "all" else options.networks.split(",")
    for name in chosen:
        if name not in cases:
            raise SystemExit(f"no network named {name!r}; known: {', '.join(cases)}, or all")
    if not kernels.available() and not options.quick:
        raise SystemExit("lowbit's kernels are not compiled here, so that nothing would be said")
    keep_freed_memory()
    torch.set_num_threads(options.threads)
    code, records = source(), []
    for name in chosen:
        progress(name)
        rows = measured(name, *cases[name], options.threads, options.seconds)
        progress("")
        print("\n".join(map(shown, rows)), flush=True)
        records += rows
    result = {
        "command": " ".join(["python scripts/bench_export.py", *(arguments or sys.argv[1:])]),
        **code,
        "device": device_name(torch.device("cpu")),
        "cores": os.cpu_count(),
        "isa": kernels.isa(),
        "threads": options.threads,
        "load": [rounded(load) for load in os.getloadavg()],  # 1, 5 and 15 minutes, at the end
        "versions": {name: importlib.metadata.version(name) for name in PACKAGES},
        "records": records,
    }
    if options.output is not None:
        write_json(options.output, result)
    return result


if __name__ == "__main__":
    main()
