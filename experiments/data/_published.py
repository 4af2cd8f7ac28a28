"""The base of data sets published as files: found, downloaded by torchvision, and verified."""

from __future__ import annotations

import hashlib
import os
import socket
from collections.abc import Mapping
from http.client import HTTPException
from pathlib import Path
from typing import Any, ClassVar
from urllib.error import URLError

from experiments.data._errors import DataCorruptError, DataNotFoundError
from experiments.data._memory import InMemory


class Published(InMemory):
    """A data set in torchvision's layout below ``root``; see ``InMemory`` for the options.

    root          the folder that holds ``folder``
    download      whether torchvision may fetch what is missing
    """

    folder: ClassVar[str]  # below root
    files: ClassVar[Mapping[str, tuple[str, ...]]]  # file in the folder -> accepted md5s
    torchvision_name: ClassVar[str]
    # Seconds without an answer after which a download gives up. torchvision sets no limit.
    patience: ClassVar[float] = 10.0

    def __init__(
        self, *, root: str | os.PathLike[str] = "data", download: bool = True, **options: Any
    ) -> None:
        super().__init__(**options)
        self.root = Path(root).expanduser()
        self.download = download

    @property
    def path(self) -> Path:
        return self.root / self.folder

    @property
    def cache(self) -> Path:
        return self.path

    def missing(self) -> list[str]:
        """The files that are not there."""
        return [file for file in self.files if not (self.path / file).is_file()]

    def check(self) -> None:
        if self.missing():
            raise self._not_found(
                "Set data.download=true where there is a network, put the files there, or name "
                "the folder that holds "
                f"{self.folder} by data.root=... or the environment variable LOWBIT_DATA."
            )

    def prepare_data(self) -> None:
        """Download what is missing, if wanted; raise ``DataNotFoundError`` where that fails."""
        if self.missing() and self.download:
            self._fetch()
        self.check()

    def read(self, file: str) -> bytes:
        """The content of a file, after its md5 was compared: nothing else is ever parsed."""
        path = self.path / file
        content = path.read_bytes()
        found = hashlib.md5(content, usedforsecurity=False).hexdigest()
        if found not in self.files[file]:
            raise DataCorruptError(
                path, found, self.files[file], "Delete it, and download or copy it again."
            )
        return content

    def _fetch(self) -> None:
        import torchvision

        before = socket.getdefaulttimeout()
        socket.setdefaulttimeout(self.patience)
        try:
            getattr(torchvision.datasets, self.torchvision_name)(str(self.root), download=True)
        except (URLError, TimeoutError, ConnectionError, HTTPException, RuntimeError) as error:
            # torchvision raises RuntimeError for a failed or damaged download.
            reason = " ".join(str(error).split())
            raise self._not_found(
                f"The download failed ({reason}). Try again where there is a network, put the "
                f"files there, or name the folder that holds {self.folder} by data.root=... or "
                "the environment variable LOWBIT_DATA."
            ) from error
        finally:
            socket.setdefaulttimeout(before)

    def _not_found(self, way_out: str) -> DataNotFoundError:
        missing = self.missing()
        expected = (f"{file}{' (missing)' if file in missing else ''}" for file in self.files)
        return DataNotFoundError(type(self).__name__, self.path, expected, way_out)
