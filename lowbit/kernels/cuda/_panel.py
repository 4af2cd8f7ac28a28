"""Weights as the GPU's matrix instruction takes them.

A prepared weight is bytes: a header, the sums of the filters, and the words in the order in
which the 32 lanes of a warp hold them, 8 filters by 4 words.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from lowbit.functional.packed_conv import check_words, plane_weights
from lowbit.functional.packed_geometry import Geometry
from lowbit.functional.packing import popcount

HEADER = 256  # bytes
MAGIC = 0x6C6F776269742D31  # "lowbit-1"
FILTERS, WORDS, LANES = 8, 4, 32  # of a tile and a step, and the lanes that hold them


class Layout(NamedTuple):
    """Where the parts of a prepared weight of one geometry lie, in bytes, and their counts."""

    filters: int
    tiles: int
    steps: int
    sums: int
    tap_sums: int
    panel: int
    end: int


@functools.cache
def layout(g: Geometry) -> Layout:
    filters = g.out_channels // g.groups
    tiles, steps = -(-filters // FILTERS), -(-g.taps * g.words // WORDS)
    tap_sums = HEADER + 4 * g.out_channels
    panel = -(-(tap_sums + 4 * g.taps * g.out_channels) // 16) * 16
    words = g.planes_w * g.groups * tiles * steps * LANES
    return Layout(filters, tiles, steps, HEADER, tap_sums, panel, panel + 8 * words)


def prepare(words: Tensor, geometry: Sequence[int], isa: str) -> Tensor:
    """``lowbit::prepare`` for the GPU on which ``words`` lie; ``isa`` is "" or "cuda"."""
    if isa not in ("", "cuda"):
        raise ValueError(f"words on a GPU are prepared for 'cuda'; got the isa {isa!r}")
    g = Geometry.from_numbers(geometry)
    check_words(words, g)
    at = layout(g)
    header = torch.zeros(HEADER // 8, dtype=torch.int64)
    header[: 1 + len(g)] = torch.tensor([MAGIC, *g])
    weights = torch.tensor(plane_weights(g.planes_w, g.thermometer_w), device=words.device)
    negative = (popcount(words).sum(-1) * weights.view(-1, 1, 1)).sum(0)
    tap_sums = (int(weights.sum()) * (g.channels // g.groups) - 2 * negative).int()
    k, filters = g.taps * g.words, at.tiles * FILTERS
    grouped = words.reshape(g.planes_w, g.groups, at.filters, k)
    grouped = F.pad(grouped, (0, at.steps * WORDS - k, 0, filters - at.filters))
    tiled = grouped.view(g.planes_w, g.groups, at.tiles, FILTERS, at.steps, WORDS)
    blob = torch.zeros(at.end, dtype=torch.uint8, device=words.device)
    for start, part in (
        (0, header.to(words.device)),
        (at.sums, tap_sums.sum(1, dtype=torch.int32)),
        (at.tap_sums, tap_sums.t()),
        (at.panel, tiled.transpose(3, 4)),
    ):
        whole = part.contiguous().flatten().view(torch.uint8)
        blob[start : start + len(whole)] = whole
    _known[blob] = g
    return blob


_known = WeakTensorKeyDictionary()


def check(blob: Tensor, g: Geometry, device: torch.device) -> Tensor:
    """A prepared weight of this geometry, on this device; ``ValueError`` where it is none."""
    if blob.device != device:
        raise ValueError(f"the prepared weight lies on {blob.device}, the input on {device}")
    found = _known.get(blob)
    if found is None:
        found = _read(blob)
        _known[blob] = found
    if found != g:
        raise ValueError(f"the weight was prepared for {found}; this call has {g}")
    return blob if blob.data_ptr() % 16 == 0 else blob.clone()


def _read(blob: Tensor) -> Geometry:
    """The geometry that a weight was prepared for, from its header, which waits for the GPU."""
    if blob.dtype == torch.uint8 and blob.ndim == 1 and len(blob) >= HEADER:
        numbers = blob[:HEADER].cpu().clone().view(torch.int64).tolist()
        g = Geometry(*numbers[1 : 1 + len(Geometry._fields)])
        if numbers[0] == MAGIC and len(blob) == layout(g).end:
            return g
    raise ValueError(
        "this is no weight prepared for 'cuda'; prepare it again with torch.ops.lowbit.prepare on "
        "the GPU"
    )
