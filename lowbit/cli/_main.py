"""The commands, and how they end."""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Sequence
from types import ModuleType

import lowbit
from lowbit.cli import bench, convert, doctor, models, predict, quantizers, summary
from lowbit.cli._errors import UserError

COMMANDS: tuple[ModuleType, ...] = (quantizers, models, summary, convert, bench, predict, doctor)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command. 0: done; 1: ``doctor`` found something wrong; 2: wrong use, with a message."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # "?" for what its encoding, ASCII say, lacks
    parser = _parser()
    options = parser.parse_args(arguments)
    try:
        code = int(options.run(options))
        sys.stdout.flush()
        return code
    except UserError as error:
        print(f"lowbit {options.command}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # The reader has seen enough; Python would say so once more as it closes the stream.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="lowbit",
        description="Binary and low-bit networks: look at quantizers and models; convert, time "
        "and use trained networks.",
        epilog="lowbit COMMAND --help says more. python -m lowbit is the same command.",
    )
    parser.add_argument("--version", action="version", version=f"lowbit {lowbit.__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for module in COMMANDS:
        first, _, rest = (module.__doc__ or "").partition("\n")
        name = module.__name__.rpartition(".")[2]
        command = commands.add_parser(
            name,
            help=first.rstrip("."),
            description=first,
            epilog=rest.strip(),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        module.add(command)
        command.set_defaults(run=module.run)
    return parser
