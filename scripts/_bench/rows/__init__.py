"""The rows of the table, each a function of a ``Bench`` that yields figures."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from _bench.bench import Bench
from _bench.figure import Figure
from _bench.rows import (
    avx2,
    beside_openvino,
    bit_planes,
    conv,
    every_isa,
    gemm,
    layer,
    linear,
    nchw,
    networks,
    overhead,
    pack,
    shapes,
    two_threads,
)

Row = Callable[[Bench], Iterator[Figure]]

ROWS: dict[str, Row] = {
    "gemm": gemm.run,
    "conv": conv.run,
    "openvino": beside_openvino.run,
    "layer": layer.run,
    "nchw": nchw.run,
    "shapes": shapes.run,
    "linear": linear.run,
    "avx2": avx2.run,
    "isas": every_isa.run,
    "networks": networks.run,
    "bits": bit_planes.run,
    "pack": pack.run,
    "threads": two_threads.run,
    "overhead": overhead.run,
}
