"""A page on ``python -m lowbit``: what each command says of itself."""

from __future__ import annotations

import contextlib
import io
import os
from unittest import mock

from docstrings import fenced

from lowbit.cli import main
from lowbit.cli._main import COMMANDS

WIDTH = "96"

HEAD = """# Command line

`lowbit` and `python -m lowbit` are the same command. It needs the installed package alone: a
checkpoint of `python -m experiments.train` says how its network is made, and so does a packed file.
Below is what each of its commands says with `--help`.

"""


def help_of(command: str) -> str:
    out = io.StringIO()
    with (
        mock.patch.dict(os.environ, COLUMNS=WIDTH),
        contextlib.redirect_stdout(out),
        contextlib.suppress(SystemExit),
    ):
        main([command, "--help"])
    return out.getvalue().rstrip()


def pages() -> dict[str, str]:
    names = [module.__name__.rpartition(".")[2] for module in COMMANDS]
    parts = [f"## {name}\n\n{fenced(help_of(name))}" for name in names]
    return {"command_line.md": HEAD + "\n\n".join(parts) + "\n"}
