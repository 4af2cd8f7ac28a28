"""The machine that runs: its processor, and its compiler."""

from __future__ import annotations

import os
import platform
import shutil
from pathlib import Path


def processor_name() -> str:
    """The model name of the processor, or its architecture where it has none."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def compiler() -> str | None:
    """The path of the C++ compiler that an installation would take; None without one."""
    given = os.environ.get("CXX")
    names = [given] if given else ["c++", "g++", "clang++"]
    return next((path for path in map(shutil.which, names) if path), None)
