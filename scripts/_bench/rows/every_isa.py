"""Layers on every instruction set that runs here: none may be slower than float.

Each has a process of its own, in which torch's and oneDNN's float may use no newer instructions
than the kernels: the float that a processor with this instruction set would have.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context

import torch

from _bench import layers
from _bench.bench import Bench, maps
from _bench.figure import Figure
from lowbit import kernels

# What limits oneDNN and torch; nothing where the kernels need the newest.
FLOAT_LIMITS = {
    "avx512bw": {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE"},
    "avx2": {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2"},
    "scalar": {"ONEDNN_MAX_CPU_ISA": "SSE41", "ATEN_CPU_CAPABILITY": "default"},
}


@contextmanager
def environment(values: dict[str, str]) -> Iterator[None]:
    """Variables for processes that start inside."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def figures(bench: Bench, isa: str) -> list[Figure]:
    """Runs in the process of the instruction set."""
    torch.set_num_threads(bench.threads)
    if kernels.isa() != isa:
        raise AssertionError(f"this process should run {isa} and runs {kernels.isa()}")
    found = []
    for name, (channels, size) in maps(bench).items():
        model = layers.conv_norm(channels, channels)
        x = torch.randn(1, channels, size, size).contiguous(memory_format=torch.channels_last)
        twin = layers.float_layer(model, torch.channels_last)
        packed = layers.packed(model, x)
        done = bench.race(
            {
                "lowbit": lambda packed=packed, x=x: packed(x),
                "torch": lambda twin=twin, x=x: twin(x),
                "best float": layers.best_float(twin, x),
            }
        )
        figure = Figure(f"{name}, {isa}", done.ratio("best float", "lowbit"), "x best float")
        figure.must, figure.times = bench.goal(1.0), done.microseconds()
        found.append(figure)
    return found


def run(bench: Bench) -> Iterator[Figure]:
    isas = kernels.isas()
    for isa in isas[-1:] if bench.quick else isas:
        limits = FLOAT_LIMITS.get(isa, {})
        forced = {"LOWBIT_ISA": isa} if kernels.available() else {}
        # A probe does not travel to another process, and no figure here is by the cycle.
        alone = Bench(bench.threads, bench.seconds, bench.quick)
        with environment(limits | forced), ProcessPoolExecutor(1, get_context("spawn")) as pool:
            yield from pool.submit(figures, alone, isa).result()
