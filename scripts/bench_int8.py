"""What int8 costs: ResNet-18, linear and recurrent layers, and their pieces, beside their rivals.

Rows are independent; whatever a row compares takes turns in one process, call by call, and every
answer is checked before it is timed. Figures are medians over the rounds, and ratios medians of
the ratios of one round. ``share`` is the part of ``must`` that is reached.

    python scripts/bench_int8.py
    python scripts/bench_int8.py --rows resnet18,linear --seconds 5
    python scripts/bench_int8.py --where --output experiments/results/benchmarks/int8.json

``resnet18``: torchvision's network with drawn weights and settled batch norms, float32 (eager,
channels last), torch.ao's eager int8 by its default qconfig ("legacy"), lowbit, onnxruntime and
OpenVINO, all calibrated on the same images; ``trained``: what they do to the logits of one that was
trained on digits for half a minute; ``linear``, ``recurrent``: static and dynamic layers
beside legacy and float ones; ``pieces``: what ResNet-18 is made of; ``calls``: small layers, whose
time is that of a call. ``--where``: the time of lowbit's network by layer, and inside them.

Peers are measured where they are installed: pip install torchvision scikit-learn onnx onnxscript
onnxruntime openvino. Freed memory is kept for all that is measured, so that nothing is charged for
the system's pages.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import sys
import time
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from _bench.bench import Bench
from _bench.figure import Figure, rounded
from _bench.int8.absent import NotHere
from _bench.int8.contenders import converted
from _bench.int8.resnet import task
from _bench.int8.rows import ROWS
from _bench.int8.where import Breakdown, breakdown
from _bench.memory import keep_freed_memory
from _bench.probe import cycles, probe
from _bench.race import race
from bench_packed import shown
from bench_training import progress

import lowbit
from experiments.provenance import device_name, source
from experiments.results import write_json
from lowbit.kernels import int8

PACKAGES = ("torch", "torchvision", "onnx", "onnxscript", "onnxruntime", "openvino")


def rows_named(names: str) -> list[str]:
    """The rows of a comma-separated list, all, or none."""
    if names in ("all", "none"):
        return list(ROWS) if names == "all" else []
    chosen = [name for name in names.split(",") if name]
    for name in chosen:
        if name not in ROWS:
            raise SystemExit(f"no row named {name!r}; known: {', '.join(ROWS)}, all, or none")
    return chosen


def version(package: str) -> str | None:
    """What is installed; None where it is not."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def machine() -> dict[str, Any]:
    """What runs here: processor, clock, versions."""
    found = probe()
    clock = None if found is None else race({"clock": found.chain()}, 0.2).each(cycles) / 1e9
    return {
        "lowbit": lowbit.__version__,
        **{name: version(name) for name in PACKAGES},
        "processor": device_name(torch.device("cpu")),
        "cores": os.cpu_count(),
        "clock_ghz": rounded(clock),
        "int8": int8.why_not() or "oneDNN",
    }


def described(about: dict[str, Any]) -> str:
    """``machine`` in a line or two."""
    versions = ", ".join(f"{name} {about[name] or 'not installed'}" for name in PACKAGES)
    clock = f" of {about['clock_ghz']} GHz" if about["clock_ghz"] else ""
    return (
        f"lowbit {about['lowbit']}, {versions}; {about['processor']}, {about['cores']} cores"
        f"{clock}; int8 by {about['int8']}"
    )


def share(figure: Figure) -> float | None:
    """The part of ``must`` that is reached, 1 and more where it is met."""
    if figure.must is None or figure.value is None:
        return None
    return figure.must / figure.value if figure.smaller else figure.value / figure.must


def table(row: str, threads: int, figures: list[Figure]) -> Table:
    made = Table(title=f"{row}, {threads} thread(s)", title_justify="left")
    for name, justify in (
        ("case", "left"),
        ("", "right"),
        ("unit", "left"),
        ("must", "right"),
        ("share", "right"),
        ("moonshot", "right"),
        ("", "left"),
        ("note", "left"),
    ):
        made.add_column(name, justify=justify)  # type: ignore[arg-type]
    for figure in figures:
        reached = share(figure)
        verdict = "" if figure.verdict == figure.note else figure.verdict
        made.add_row(
            figure.case,
            shown(figure.value),
            figure.unit,
            "" if figure.must is None else shown(figure.must),
            "" if reached is None else f"{reached:.1%}",
            "" if figure.moonshot is None else shown(figure.moonshot),
            verdict,
            figure.note,
        )
    return made


def where_table(found: Breakdown) -> Table:
    """The nodes of lowbit's ResNet-18, and their sums."""
    made = Table(title="Where the time goes, one image, us", title_justify="left")
    for name in ("node", "what"):
        made.add_column(name)
    for name in ("all", "operators", "oneDNN", "Python", "share"):
        made.add_column(name, justify="right")

    def add(name: str, kind: str, *times: float | None) -> None:
        part = "" if times[0] is None else f"{times[0] / found.network:.1%}"
        made.add_row(name, kind, *("" if t is None else f"{t:.0f}" for t in times), part)

    for node in found.nodes:
        add(node.name, node.kind, node.total, node.operators, node.onednn, node.python)
    made.add_section()
    sums = found.sums()
    add("all nodes", "", sums["nodes"], sums["operators"], sums["onednn"], sums["python"])
    add("glue between them", "", found.glue, None, None, None)
    add("the network", "", found.network, None, None, None)
    return made


def where(quick: bool, threads: int) -> Breakdown:
    """Of one image through lowbit's int8 ResNet-18."""
    work = task(quick, threads)
    return breakdown(converted(work), work.held_out[:1], 3 if quick else 51)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--rows", default="all", help=f"all, none, or some of {','.join(ROWS)}")
    parser.add_argument("--where", action="store_true", help="break the network's time down")
    parser.add_argument("--threads", type=int, nargs="+", default=[1], help="thread counts")
    parser.add_argument("--seconds", type=float, default=1.5, help="for each comparison")
    parser.add_argument("--quick", action="store_true", help="tiny sizes: only see that it runs")
    parser.add_argument("--output", type=Path, help="JSON file to write")
    chosen = parser.parse_args(arguments)
    rows = rows_named(chosen.rows)
    if not int8.available() and not chosen.quick:
        raise SystemExit(
            f"{int8.why_not()}, so these would be the times of the plain-torch specification; see "
            "that the script runs with --quick"
        )
    kept = keep_freed_memory()
    code, start = source(), time.time()
    console = Console(width=None if sys.stdout.isatty() else 120)
    about = {**machine(), "freed_memory_kept": kept}
    console.print(described(about), highlight=False)
    records, broken_down = [], []
    for threads in chosen.threads:
        torch.set_num_threads(threads)
        bench = Bench(threads, 0.05 if chosen.quick else chosen.seconds, chosen.quick)
        for row in rows:
            progress(f"{row}, {threads} thread(s)")
            try:
                figures = list(ROWS[row](bench))
            except NotHere as error:
                figures = [Figure(row, None, "", note=str(error))]
            progress("")
            console.print(table(row, threads, figures))
            for figure in figures:
                record = {"row": row, "threads": threads, **figure.record()}
                records.append(record | {"share": rounded(share(figure))})
        if chosen.where:
            found = where(chosen.quick, threads)
            console.print(where_table(found))
            broken_down.append({"threads": threads, **found.record()})
    asked = [record for record in records if "met" in record]
    met = sum(record["met"] for record in asked)
    console.print(f"{met} of {len(asked)} figures are what they must be", highlight=False)
    if chosen.output is not None:
        result = {
            "command": " ".join(["python scripts/bench_int8.py", *(arguments or sys.argv[1:])]),
            **code,
            **about,
            "seconds": round(time.time() - start),
            "met": met,
            "asked": len(asked),
            "figures": records,
            "where": broken_down,
        }
        write_json(chosen.output, result)
    return 0


if __name__ == "__main__":
    sys.exit(main())
