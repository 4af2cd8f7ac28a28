"""The processor's clock, ceilings and memory, by a small C file compiled when it is needed."""

from __future__ import annotations

import ctypes
import functools
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from torch import Tensor

from _bench.race import Runner, race

CHAIN = 400_000
ROUNDS = 20_000
# Multiply-adds in one round of a loop of probe.c.
PRODUCTS = {"bit_products": 8 * 512, "prefix_products": 16 * 512, "float_products": 24 * 16}


class Probe:
    """Functions of probe.c, as runners of a race."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._library = library
        for name in ("chain", "read_only"):
            getattr(library, name).restype = ctypes.c_uint64
        library.read_only.argtypes = [ctypes.c_void_p, ctypes.c_uint64]

    def chain(self) -> Runner:
        """``CHAIN`` dependent additions, of one cycle each."""
        run, count = self._library.chain, ctypes.c_uint64(CHAIN)
        return lambda: run(count)

    def read_only(self, x: Tensor) -> Runner:
        """Read the memory of a dense tensor, a multiple of 512 bytes."""
        run, size = self._library.read_only, x.numel() * x.element_size()
        if size % 512:
            raise ValueError(f"the loop reads multiples of 512 bytes; got {size}")
        return lambda: run(x.data_ptr(), size)

    def ceilings(self, seconds: float) -> dict[str, float]:
        """Multiply-adds a cycle of xor-popcount-add, of the prefix coding and of float FMA.

        Empty without 512-bit vectors and their popcount.
        """
        if not self._library.has_popcount():
            return {}
        count = ctypes.c_uint64(ROUNDS)

        def runner(name: str) -> Runner:
            run = getattr(self._library, name)
            return lambda: run(count)

        done = race({"clock": self.chain(), **{n: runner(n) for n in PRODUCTS}}, seconds)
        return {
            name: done.each(lambda t, n=name, w=work: w * ROUNDS / (t[n] * cycles(t)))  # type: ignore[misc]
            for name, work in PRODUCTS.items()
        }


def cycles(times: dict[str, float]) -> float:
    """Cycles a second, from the time of the chain in the same round."""
    return CHAIN / times["clock"]


@functools.cache
def probe() -> Probe | None:
    """The compiled probe; None where there is no C compiler or it does not know this machine."""
    candidates = (os.environ.get("CC", "cc"), "gcc", "clang")
    compiler = next((path for name in candidates if (path := shutil.which(name))), None)
    if compiler is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder) / "probe.so"
        source = Path(__file__).with_name("probe.c")
        options = ["-O3", "-march=native", "-shared", "-fPIC"]
        done = subprocess.run(
            [compiler, *options, str(source), "-o", str(library)], capture_output=True
        )
        if done.returncode != 0:
            return None
        return Probe(ctypes.CDLL(str(library)))
