"""What can be wrong with a data set on disk, said before any training."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path


class DataError(RuntimeError):
    """A data set that cannot be used; the message is complete without a traceback."""


class DataNotFoundError(DataError):
    """Files of a data set are not there, and were not downloaded."""

    def __init__(self, name: str, folder: Path, expected: Iterable[str], way_out: str) -> None:
        files = "".join(f"\n    {file}" for file in expected)
        super().__init__(
            f"{name} was not found in {folder.absolute()}; expected there:{files}\n{way_out}"
        )


class DataCorruptError(DataError):
    """A file of a data set is not the published one."""

    def __init__(self, path: Path, found: str, accepted: Iterable[str], way_out: str) -> None:
        super().__init__(
            f"{path.absolute()} is not the published file: its md5 is {found}, "
            f"not {' or '.join(accepted)}. {way_out}"
        )
