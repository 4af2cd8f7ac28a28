"""Files that are there whole, or as they were before."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def beside(path: Path) -> Iterator[Path]:
    """The name of a file in the same folder to write in place of ``path``; it becomes ``path``.

    After an error there is nothing of it, and ``path`` is as it was. Several writers at once do
    not meet: the last one's file stays.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "answer.txt"
    ...     with beside(path) as file:
    ...         _ = file.write_text("42")
    ...     [file.name for file in Path(folder).iterdir()], path.read_text()
    (['answer.txt'], '42')
    """
    other = path.with_name(f".{path.name}.{os.urandom(4).hex()}")
    try:
        yield other
        other.replace(path)
    finally:
        other.unlink(missing_ok=True)
