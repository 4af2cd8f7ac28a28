"""Memory that is freed, kept for the next allocation."""

from __future__ import annotations

import ctypes
import sys

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # of glibc's mallopt
LARGE = 1 << 30


def keep_freed_memory() -> bool:
    """Have glibc keep large blocks when they are freed; returns whether it does.

    Otherwise torch takes the pages of each result anew, at times, and a float layer is charged
    for that, several times what its arithmetic costs where maps are large. lowbit's operators
    keep the memory of their results by themselves.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return bool(mallopt(MMAP_THRESHOLD, LARGE) and mallopt(TRIM_THRESHOLD, LARGE))
