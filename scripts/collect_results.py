"""Gather finished runs: ``python scripts/collect_results.py runs/digits_binary/* [--allow-dirty]``.

Writes experiments/results/<experiment>.json, and RESULTS.md and plots/*.png of all that is there.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from experiments.results import FOLDER, RESULT, collect


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "runs", nargs="*", type=Path, metavar="RUN",
        help="folder of a finished run, or its result.json; none: table and pictures alone",
    )  # fmt: skip
    parser.add_argument(
        "--allow-dirty", action="store_true", help="take results from changed files, marked"
    )
    parser.add_argument("--into", type=Path, default=FOLDER, help="default: experiments/results")
    options = parser.parse_args()
    unfinished = [run for run in options.runs if run.is_dir() and not (run / RESULT).is_file()]
    runs = [run for run in options.runs if run not in unfinished]
    if runs:
        for run in unfinished:
            print(f"note: {run} left out: no {RESULT}, so it did not finish", file=sys.stderr)
    try:
        written = collect(runs or unfinished, options.into, options.allow_dirty)
    except ValueError as error:
        sys.exit(str(error))
    print(*written, sep="\n")


if __name__ == "__main__":
    main()
