"""What packed layers cost, beside float and int8 layers and what the processor can do.

Rows are independent; whatever a row compares takes turns in one process, call by call, and every
answer is checked before it is timed. Figures are medians over the rounds, and ratios medians of
the ratios of one round; the row of two threads compares the fastest times, which other work on
the machine disturbs least. Cycles are those of a chain of dependent additions that takes its turn
too. "Best float" is oneDNN with weights laid out ahead; torch's eager float is beside it.

    python scripts/bench_packed.py
    python scripts/bench_packed.py --rows gemm,conv --seconds 5
    python scripts/bench_packed.py --output experiments/results/benchmarks/packed.json

OpenVINO is measured where it is installed (pip install openvino). Freed memory is kept for all
that is measured, so that nothing is charged for the system's pages.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from _bench.bench import PREFIX_CEILING, XNOR_CEILING, Bench
from _bench.figure import Figure, rounded
from _bench.memory import keep_freed_memory
from _bench.openvino_peer import NOT_INSTALLED, openvino
from _bench.probe import cycles, probe
from _bench.race import race
from _bench.rows import ROWS
from bench_training import progress

import lowbit
from experiments.provenance import device_name, source
from experiments.results import write_json
from lowbit import kernels


def rows_named(names: str) -> list[str]:
    """The rows of a comma-separated list, or all."""
    if names == "all":
        return list(ROWS)
    chosen = [name for name in names.split(",") if name]
    for name in chosen:
        if name not in ROWS:
            raise SystemExit(f"no row named {name!r}; known: {', '.join(ROWS)}, or all")
    return chosen


def machine(seconds: float) -> dict[str, Any]:
    """What runs here: processor, versions, clock and measured ceilings."""
    found = probe()
    clock = None
    if found is not None:
        clock = race({"clock": found.chain()}, 0.2).each(cycles) / 1e9
    ceilings = {} if found is None else found.ceilings(seconds)
    peer = openvino()
    return {
        "lowbit": lowbit.__version__,
        "torch": torch.__version__,
        "openvino": None if peer is None else peer.__version__,
        "processor": device_name(torch.device("cpu")),
        "cores": os.cpu_count(),
        "isa": kernels.isa(),
        "isas": list(kernels.isas()),
        "clock_ghz": rounded(clock),
        "ceilings_per_cycle": {name: rounded(value) for name, value in ceilings.items()},
    }


def described(about: dict[str, Any]) -> str:
    lines = [
        f"lowbit {about['lowbit']} ({about['isa']}), torch {about['torch']}, OpenVINO "
        f"{about['openvino'] or NOT_INSTALLED.removeprefix('openvino ')}; {about['processor']}, "
        f"{about['cores']} cores" + (f" of {about['clock_ghz']} GHz" if about["clock_ghz"] else ""),
    ]
    if about["ceilings_per_cycle"]:
        measured = about["ceilings_per_cycle"]
        lines.append(
            f"multiply-adds a cycle that the instructions allow, measured: xnor and popcount "
            f"{measured['bit_products']:.0f} (by count {XNOR_CEILING}), prefix coding "
            f"{measured['prefix_products']:.0f} (by count {PREFIX_CEILING}), float "
            f"{measured['float_products']:.0f}"
        )
    return "\n".join(lines)


def shown(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def line(row: str, threads: int, figure: Figure) -> str:
    note = "" if figure.note == figure.verdict else figure.note
    return (
        f"{row:<9} {threads}T  {figure.case:<37} {shown(figure.value):>6} {figure.unit:<15} "
        f"{shown(figure.must):>5} {shown(figure.moonshot):>5}  {figure.verdict:<12} {note}"
    ).rstrip()


HEADER = f"{'row':<9} {'':<3} {'case':<37} {'':>6} {'':<15} {'must':>5} {'moon':>5}"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--rows", default="all", help=f"all, or some of {','.join(ROWS)}")
    parser.add_argument("--threads", type=int, nargs="+", default=[1], help="thread counts")
    parser.add_argument("--seconds", type=float, default=1.5, help="for each comparison")
    parser.add_argument("--quick", action="store_true", help="tiny sizes: only see that it runs")
    parser.add_argument("--output", type=Path, help="JSON file to write")
    chosen = parser.parse_args(arguments)
    rows = rows_named(chosen.rows)
    if not kernels.available() and not chosen.quick:
        raise SystemExit(
            "the compiled kernels are not here, so these would be the times of the plain-torch "
            "specification; install lowbit with a C++ compiler, or see that the script runs "
            "with --quick"
        )
    kept = keep_freed_memory()
    code, start = source(), time.time()
    seconds = 0.05 if chosen.quick else chosen.seconds
    about = {**machine(seconds), "freed_memory_kept": kept}
    print(described(about), HEADER, sep="\n")
    records = []
    for threads in chosen.threads:
        torch.set_num_threads(threads)
        bench = Bench(threads, seconds, chosen.quick, probe())
        for row in rows:
            progress(f"{row}, {threads} thread(s)")
            for figure in ROWS[row](bench):
                progress("")
                print(line(row, threads, figure), flush=True)
                records.append({"row": row, "threads": threads, **figure.record()})
    asked = [record for record in records if "met" in record]
    met = sum(record["met"] for record in asked)
    print(f"{met} of {len(asked)} figures are what they must be")
    if chosen.output is not None:
        result = {
            "command": " ".join(["python scripts/bench_packed.py", *(arguments or sys.argv[1:])]),
            **code,
            **about,
            "seconds": round(time.time() - start),
            "met": met,
            "asked": len(asked),
            "figures": records,
        }
        write_json(chosen.output, result)
    return 0


if __name__ == "__main__":
    sys.exit(main())
