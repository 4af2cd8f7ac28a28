"""Fill the tables of the README from what was measured: speed and results.

    python scripts/update_readme.py            # writes README.md
    python scripts/update_readme.py --check    # exit code 1 where it is not current

A table stands between ``<!-- begin: NAME -->`` and ``<!-- end: NAME -->``; NAME is one of
``speed`` (experiments/results/benchmarks/*.json) and ``results`` (experiments/results/*.json).
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from statistics import fmean
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from experiments._published import gap, opening
from experiments.results import FOLDER, _percent, _write

README = Path(__file__).resolve().parent.parent / "README.md"
BENCHMARKS = FOLDER / "benchmarks"
PACKED = ("packed", "packed_zen4")  # the second gives its ratios beside the first's

# Row and case of the benchmark, its name for a reader, and the calls of which times are shown.
CONV = ("torch", "best float", "int8", "lowbit")
LINEAR = ("F.linear", "best float", "int8 dynamic", "lowbit")
NETWORK = ("torch", None, None, "lowbit")
SPEED = (
    ("layer", "64@56", "3 x 3 and batch norm, 64 channels, 56 x 56", CONV),
    ("layer", "128@28", "3 x 3 and batch norm, 128 channels, 28 x 28", CONV),
    ("layer", "256@14", "3 x 3 and batch norm, 256 channels, 14 x 14", CONV),
    ("layer", "512@7", "3 x 3 and batch norm, 512 channels, 7 x 7", CONV),
    ("linear", "256 x 4096 to 4096", "linear 4096 to 4096, batch 256", LINEAR),
    ("linear", "1 x 4096 to 4096", "linear 4096 to 4096, batch 1", LINEAR),
    ("networks", "QuickNet, exact", "QuickNet, 224 x 224", NETWORK),
    ("networks", "Bi-Real-18, exact", "Bi-Real-Net-18, 224 x 224", NETWORK),
)


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A table of Markdown: the first column to the left, the others to the right."""
    head = list(head)
    ruler = ["---", *["---:"] * (len(head) - 1)]
    return "\n".join("| " + " | ".join(row) + " |" for row in (head, ruler, *rows))


def _benchmark(name: str) -> dict[str, Any]:
    return json.loads((BENCHMARKS / f"{name}.json").read_text())


def _figure(benchmark: dict[str, Any], row: str, case: str, rival: str) -> dict[str, Any] | None:
    """The figure of one thread: the one relative to the rival where there are several."""
    found = [
        figure
        for figure in benchmark["figures"]
        if (figure["row"], figure["case"], figure["threads"]) == (row, case, 1)
    ]
    relative = [figure for figure in found if figure["unit"] == f"x {rival}"]
    return next(iter(relative or found), None)


def _ratio(figure: dict[str, Any] | None, rival: str) -> str:
    """How many times as fast as the rival: as measured round by round, else of the medians."""
    if figure is None:
        return "–"
    if figure["unit"] == f"x {rival}":
        return f"{figure['value']:.1f}"
    times = figure["microseconds"]
    return f"{times[rival]['median'] / times['lowbit']['median']:.1f}"


def _time(microseconds: float) -> str:
    if microseconds < 1000:
        return f"{microseconds:.0f} µs"
    return f"{microseconds / 1000:.3g} ms"


def _where(benchmark: dict[str, Any]) -> str:
    clock = f" at {benchmark['clock_ghz']:.1f} GHz" if benchmark.get("clock_ghz") else ""
    return f"{benchmark['processor']}{clock}, `{benchmark['isa']}`"


def _speed_rows(first: dict[str, Any], second: dict[str, Any]) -> Iterator[list[str]]:
    for row, case, words, calls in SPEED:
        figure = _figure(first, row, case, calls[0])
        if figure is None:
            raise ValueError(f"{PACKED[0]}.json has no figure {row!r}, {case!r} for one thread")
        times = figure["microseconds"]
        shown = ["–" if call is None else _time(times[call]["median"]) for call in calls]
        other = _ratio(_figure(second, row, case, calls[0]), calls[0])
        yield [words, *shown, _ratio(figure, calls[0]), other]


def speed() -> str:
    """Packed layers and networks beside float and int8 ones, on two processors."""
    first, second = map(_benchmark, PACKED)
    head = ["one thread, float in and out", "float32", "best float32", "int8", "packed",
            "float32 / packed", "on B"]  # fmt: skip
    notes = [
        f"All columns but the last: {_where(first)}, torch {first['torch']}. "
        f"B: {_where(second)}, torch {second['torch']}. Medians of calls that take turns in one "
        "process, batch 1 where nothing else is said. float32 is torch's eager call, best float32 "
        "and int8 oneDNN's with weights laid out ahead. The packed answers are those of the "
        "trained layers. On your processor: `python scripts/bench_packed.py`.",
    ]
    return table(head, _speed_rows(first, second)) + "\n\n" + _wrapped(" ".join(notes))


def _wrapped(text: str, width: int = 100) -> str:
    lines, line = [], ""
    for word in text.split():
        if line and len(line) + 1 + len(word) > width:
            lines.append(line)
            line = word
        else:
            line = f"{line} {word}".strip()
    return "\n".join([*lines, line])


def sentences(head: list[str]) -> int:
    """How many lines of an experiment's opening are prose; fields in a column follow them."""
    return next((i for i, line in enumerate(head) if re.match(r"\w+  +", line)), len(head))


def _packed_size(name: str, run: dict[str, Any]) -> int:
    """Bytes of the packed network, as measured where its packed form was compared."""
    compared = FOLDER / "packed" / f"{name}.json"
    if compared.is_file():
        return json.loads(compared.read_text())["packed"]["bytes_packed"]
    return run["bytes_packed"] or run["bytes"]


def _result_row(experiment: dict[str, Any], group: dict[str, Any]) -> list[str]:
    name, published, metrics = experiment["experiment"], experiment["published"], group["metrics"]
    means = {key: metric["mean"] for key, metric in metrics.items()}
    accuracy = metrics["test/accuracy"]
    spread = "" if accuracy["std"] is None else f" ± {_percent(accuracy['std'])}"
    run = group["runs"][0]
    sizes = dict.fromkeys([run["bytes"], _packed_size(name, run)])
    said = opening(name)
    what = " ".join(said[: sentences(said)]).split(". ")[0].rstrip(".")
    return [
        f"`{name}`: {what}",
        _percent(published["value"]) if published else "–",
        _percent(accuracy["mean"]) + spread,
        _percent(gap(published, means), "+"),
        str(group["n"]),
        " → ".join(f"{size / 1000:,.0f} kB" for size in sizes),
        f"{fmean(run['seconds'] for run in group['runs']):.0f} s",
    ]


def results(folder: Path = FOLDER) -> str:
    """Every experiment that was run as its file says, published figure beside ours."""
    rows = [
        _result_row(experiment, group)
        for experiment in (json.loads(path.read_text()) for path in sorted(folder.glob("*.json")))
        for group in experiment["groups"]
        if not group["overrides"] and "test/accuracy" in group["metrics"]
    ]
    head = ["`experiment=`", "published", "test accuracy, %", "gap", "seeds", "bytes → in bits",
            "time of a run"]  # fmt: skip
    return table(head, rows)


BLOCKS = {"speed": speed, "results": results}


def filled(text: str) -> str:
    """The text with every table between its two markers made anew.

    Raises ``ValueError`` for a marker without its other half, and for one of an unknown name.
    """
    for kind, name in re.findall(r"<!-- (begin|end): (.*?) -->", text):
        if name not in BLOCKS:
            raise ValueError(f"no table named {name!r} ({kind}); known: {', '.join(BLOCKS)}")
    for name, make in BLOCKS.items():
        begin, end = f"<!-- begin: {name} -->", f"<!-- end: {name} -->"
        if (text.count(begin), text.count(end)) == (0, 0):
            continue
        head, found, rest = text.partition(begin)
        _, closed, tail = rest.partition(end)
        if not (found and closed) or begin in rest or end in tail:
            raise ValueError(f"a table stands between one {begin} and one {end} after it")
        text = f"{head}{begin}\n{make()}\n{end}{tail}"
    return text


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if not current")
    parser.add_argument("--file", type=Path, default=README, help="default: README.md")
    options = parser.parse_args(arguments)
    try:
        old = options.file.read_text(encoding="utf-8")
        new = filled(old)
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 2
    if old == new:
        print(f"{options.file.name} is current")
        return 0
    if options.check:
        print(f"{options.file.name} is not current: python scripts/update_readme.py")
        return 1
    _write(options.file, new)
    print(f"{options.file.name} written")
    return 0


if __name__ == "__main__":
    sys.exit(main())
