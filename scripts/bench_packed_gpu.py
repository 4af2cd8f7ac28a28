"""What packed layers cost on a GPU, beside float16 and int8 of cuBLAS and cuDNN.

Each call is captured in a CUDA graph several times over, with weights of its own each time, so
that neither launches nor what a cache keeps of one weight count. The rivals take turns, replay
by replay; figures are medians over the rounds of CUDA-event times, ratios medians of the ratios
of one round. Answers are compared with a float product of signs first, to the last integer.

    packed        packed input, float32 output with scale and shift, as between layers
    from floats   float32 input, coded and packed first
    float16       F.linear or F.conv2d of torch, convolutions channels last, cuDNN's best algorithm
    int8          torch._int_mm, where it takes the shape

    python scripts/bench_packed_gpu.py --output experiments/results/benchmarks/packed_gpu.json
    python scripts/bench_packed_gpu.py --rows rate,linear --tiles
"""

from __future__ import annotations

import argparse
import ctypes
import math
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "scripts")]

import torch  # noqa: E402
import torch.nn.functional as F  # noqa: E402
from bench_training import BINARY, float_twin  # noqa: E402
from torch import Tensor  # noqa: E402

import lowbit  # noqa: E402
from experiments.provenance import device_name, source  # noqa: E402
from experiments.results import write_json  # noqa: E402
from lowbit import kernels  # noqa: E402
from lowbit.functional.packed_conv import prepare_words  # noqa: E402
from lowbit.kernels import AFFINE, FLOAT, Geometry  # noqa: E402
from lowbit.kernels.cuda import _driver, _panel, _tiles  # noqa: E402
from lowbit.models import QuickNet, ResNet18  # noqa: E402

ROUNDS = 9
COPIES = 24
MACS = {1: 16 * 8 * 256, 8: 16 * 8 * 32, 16: 16 * 8 * 16}
NAMES = {1: "bits, AND", 8: "int8", 16: "float16"}
ROWS_OF = (1, 8, 64, 512, 4096, 8192)
FEATURES = (1024, 2048, 4096, 8192)
# Of ResNet-18 for 224 x 224: channels, filters, size of the map, stride.
CONVS = (
    (64, 64, 56, 1),
    (64, 128, 56, 2),
    (128, 128, 28, 1),
    (128, 256, 28, 2),
    (256, 256, 14, 1),
    (256, 512, 14, 2),
    (512, 512, 7, 1),
)
BATCHES = (1, 8, 128)
Call = Callable[[int], object]


class _Rate(ctypes.Structure):
    _fields_ = [("out", ctypes.c_void_p), ("turns", ctypes.c_int)]


def rates(device: torch.device) -> list[dict[str, Any]]:
    """Multiply-adds a second of each matrix instruction, from registers."""
    processors = torch.cuda.get_device_properties(device).multi_processor_count
    text = (_driver.FOLDER / "device.cuh").read_text()
    text += Path(__file__).with_name("_bench").joinpath("mma_rate.cu").read_text()
    blocks, threads, turns = 4 * processors, 256, 2000
    out = torch.zeros(blocks * threads, dtype=torch.int32, device=device)
    rows = []
    for kind, macs in MACS.items():
        launch = _driver.load(text, "lowbit_rate", (("KIND", kind),), device)
        params = _Rate(out.data_ptr(), turns)

        def call(launch: _driver.Launch = launch, params: _Rate = params) -> None:
            launch((blocks, 1, 1), threads, 0, params)

        call()
        seconds = statistics.median(event_times({"call": call}, ROUNDS)["call"])
        done = 8 * turns * macs * blocks * threads // 32
        rows.append({"instruction": NAMES[kind], "tera_macs_per_second": done / seconds / 1e12})
    return rows


def event_times(calls: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each call, round by round, in turns."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            begin.record()
            call()
            end.record()
            end.synchronize()
            times[name].append(begin.elapsed_time(end) / 1e3)
    return times


def captured(call: Call, copies: int) -> Callable[[], object]:
    """A CUDA graph of the call for each copy of the weights."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for i in range(min(3, copies)):
            call(i)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for i in range(copies):
            call(i)
    return graph.replay


def race(calls: dict[str, Call], copies: int) -> dict[str, Any]:
    """Microseconds a call, and the ratios to the first of them, "packed"."""
    graphs = {name: captured(call, copies) for name, call in calls.items()}
    for replay in graphs.values():
        replay()
    times = event_times(graphs, ROUNDS)
    found: dict[str, Any] = {
        "microseconds": {n: 1e6 * statistics.median(t) / copies for n, t in times.items()}
    }
    found["times_packed"] = {
        name: statistics.median(a / b for a, b in zip(t, times["packed"], strict=True))
        for name, t in times.items()
        if name != "packed"
    }
    return found


def signs(*shape: int, device: torch.device) -> Tensor:
    return (torch.randint(0, 2, shape, device=device) * 2 - 1).float()


class Case:
    """A packed layer on the GPU, its input, and what it must compute."""

    def __init__(
        self, geometry: Geometry, x: Tensor, weight: Tensor, copies: int, last: bool
    ) -> None:
        words = prepare_words(weight).to(x.device)
        self.geometry, self.x, self.last = geometry, x, last
        self.panels = [kernels.prepare(words, geometry) for _ in range(copies)]
        self.packed = kernels.pack(x)
        self.params = torch.randn(2, geometry.out_channels, device=x.device)

    def sums(self) -> Tensor:
        panel = self.panels[0]
        return kernels.bconv(self.packed, panel, None, None, None, self.geometry)

    def run(self, x: Tensor, i: int) -> Tensor:
        given = (x, self.panels[i], self.params, None, None, self.geometry)
        return kernels.bconv(*given, (AFFINE,), FLOAT, self.last)


def checked(case: Case, expected: Tensor, name: str) -> None:
    if not torch.equal(case.sums().float(), expected.round()):
        raise SystemExit(f"{name}: the packed layer gives other sums than the product of signs")


def linear(m: int, k: int, n: int, device: torch.device, tiles: bool) -> dict[str, Any]:
    copies = max(2, min(COPIES, 2**31 // (m * (k + 4 * n))))
    x, weight = signs(m, k, device=device), signs(n, k, device=device)
    case = Case(Geometry(k, n), x, weight, copies, False)
    checked(case, F.linear(x, weight), f"linear {m} x {k} x {n}")
    halves = [weight.half() for _ in range(copies)]
    x16 = x.half()
    calls: dict[str, Call] = {
        "packed": lambda i: case.run(case.packed, i),
        "from floats": lambda i: case.run(x, i),
        "float16": lambda i: F.linear(x16, halves[i]),
    }
    if m > 16:
        bytes_ = [weight.to(torch.int8).t() for _ in range(copies)]
        x8 = x.to(torch.int8)
        calls["int8"] = lambda i: torch._int_mm(x8, bytes_[i])
    found = {
        "shape": [m, k, n],
        "steps": _panel.layout(case.geometry).steps,
        "tile": chosen(case, m),
    } | race(calls, copies)
    if tiles:
        found["tiles"] = each_tile(case, copies)
    return found


def conv(
    shape: tuple[int, int, int, int], batch: int, device: torch.device, tiles: bool
) -> dict[str, Any]:
    channels, filters, size, stride = shape
    x, weight = (
        signs(batch, channels, size, size, device=device),
        signs(filters, channels, 3, 3, device=device),
    )
    g = Geometry.of(channels, filters, 1, (3, 3), (stride, stride), (1, 1), (1, 1))
    case = Case(g, x, weight, COPIES, False)
    name = f"convolution {channels} to {filters} at {size}, batch {batch}"
    checked(case, F.conv2d(F.pad(x, [1] * 4, value=-1.0), weight, stride=stride), name)
    halves = [weight.half().to(memory_format=torch.channels_last) for _ in range(COPIES)]
    x16 = x.half().to(memory_format=torch.channels_last)
    calls: dict[str, Call] = {
        "packed": lambda i: case.run(case.packed, i),
        "from floats": lambda i: case.run(x, i),
        "float16": lambda i: F.conv2d(x16, halves[i], stride=stride, padding=1),
    }
    rows = batch * (-(-size // stride)) ** 2
    found = {"shape": [channels, filters, size, stride], "batch": batch}
    found |= {"steps": _panel.layout(g).steps, "tile": chosen(case, rows)} | race(calls, COPIES)
    if tiles:
        found["tiles"] = each_tile(case, COPIES)
    return found


def chosen(case: Case, rows: int) -> list[int]:
    g = case.geometry
    processors = torch.cuda.get_device_properties(case.x.device).multi_processor_count
    return list(_tiles.choose(rows, g.out_channels, 1, _panel.layout(g).steps, False, processors))


def each_tile(case: Case, copies: int) -> dict[str, float]:
    """Microseconds of the packed call with each way to divide the work."""
    choose, times = _tiles.choose, {}
    try:
        for tile in _tiles.TILES:
            _tiles.choose = lambda *_, tile=tile: tile
            replay = captured(lambda i: case.run(case.packed, i), copies)
            replay()
            seconds = statistics.median(event_times({"tile": replay}, ROUNDS)["tile"])
            times[" ".join(map(str, tile))] = 1e6 * seconds / copies
    finally:
        _tiles.choose = choose
    return times


def network(name: str, batch: int, device: torch.device) -> dict[str, Any]:
    """A whole network as packed, beside its float twin in float16."""
    torch.manual_seed(0)
    model = make(name)
    x = torch.randn(batch, 3, 224, 224)
    few = x[:2]
    packed, report = lowbit.convert(model, keep_slower=True)
    expected = packed(few)
    packed.to(device)
    found = packed(few.to(device)).cpu()
    # Float convolutions round otherwise on a GPU, and signs near 0 turn.
    apart = float((found - expected).norm() / expected.norm())
    twin = float_twin(model).half().to(device, memory_format=torch.channels_last).eval()
    x32, x16 = x.to(device), x.half().to(device, memory_format=torch.channels_last)
    calls: dict[str, Call] = {"packed": lambda i: packed(x32), "float16": lambda i: twin(x16)}
    described = {"network": name, "batch": batch, "report": str(report)}
    return described | {"apart_from_cpu": apart} | race(calls, 2)


def make(name: str) -> torch.nn.Module:
    if name == "ResNet-18":
        return ResNet18(num_classes=1000, stem="imagenet", **BINARY).eval()
    return QuickNet(**BINARY).eval()


def line(name: str, found: dict[str, Any]) -> str:
    us, ratio = {"from floats": math.nan} | found["microseconds"], found["times_packed"]
    int8 = f"{us['int8']:9.1f} {ratio['int8']:6.2f}" if "int8" in us else f"{'-':>9} {'-':>6}"
    text = (
        f"{name:32} {us['packed']:9.1f} {us['from floats']:9.1f} {us['float16']:9.1f} "
        f"{ratio['float16']:6.2f} {int8}"
    )
    if "tiles" in found:
        best = min(found["tiles"], key=found["tiles"].__getitem__)
        now = " ".join(map(str, found["tile"]))
        text += "   " + " ".join(f"{t:.1f}" for t in found["tiles"].values())
        text += "" if best == now else f"   best {best}, chosen {now}"
    return text


HEAD = (
    f"{'microseconds':32} {'packed':>9} {'from f32':>9} {'float16':>9} {'ratio':>6} {'int8':>9} "
    f"{'ratio':>6}"
)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--rows", default="rate,linear,conv,network", help="which, with commas between"
    )
    parser.add_argument("--tiles", action="store_true", help="time every division of the work")
    parser.add_argument("--output", type=Path, help="a JSON file to write")
    args = parser.parse_args()
    rows = set(args.rows.split(","))
    if wrong := rows - {"rate", "linear", "conv", "network"}:
        parser.error(
            f"no rows named {', '.join(sorted(wrong))}; known: rate, linear, conv, network"
        )
    if not torch.cuda.is_available():
        raise SystemExit("no CUDA device: these figures are of a GPU")
    device = torch.device("cuda", torch.cuda.current_device())
    torch.backends.cudnn.benchmark = True
    torch.manual_seed(0)
    begin = time.perf_counter()
    result: dict[str, Any] = {
        "device": device_name(device),
        "lowbit": lowbit.__version__,
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        **source(),
    }
    print(f"{result['device']}, torch {torch.__version__}", flush=True)
    with torch.inference_mode():
        if "rate" in rows:
            result["rate"] = rates(device)
            for row in result["rate"]:
                print(f"{row['instruction']:12} {row['tera_macs_per_second']:8.0f} TMAC/s")
        print(HEAD)
        if "linear" in rows:
            result["linear"] = []
            for k in FEATURES:
                for m in ROWS_OF:
                    result["linear"].append(linear(m, k, k, device, args.tiles))
                    print(line(f"linear {m} x {k} x {k}", result["linear"][-1]), flush=True)
                    torch.cuda.empty_cache()
        if "conv" in rows:
            result["conv"] = []
            for batch in BATCHES:
                for shape in CONVS:
                    result["conv"].append(conv(shape, batch, device, args.tiles))
                    name = "conv {} to {} at {} / {}, ".format(*shape) + str(batch)
                    print(line(name, result["conv"][-1]), flush=True)
                    torch.cuda.empty_cache()
        if "network" in rows:
            result["network"] = []
            for which in ("ResNet-18", "QuickNet"):
                for batch in BATCHES:
                    result["network"].append(network(which, batch, device))
                    print(line(f"{which}, {batch}", result["network"][-1]), flush=True)
    result["seconds"] = round(time.perf_counter() - begin, 1)
    if args.output:
        write_json(args.output, result)
        print(f"written: {args.output}")


if __name__ == "__main__":
    main()
