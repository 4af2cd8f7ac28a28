"""How the work of a packed convolution is divided among the GPU's processors."""

from __future__ import annotations

import functools
from typing import NamedTuple


class Tile(NamedTuple):
    """A way to compile conv.cu: what one block computes, and with how many warps.

    ``wm``: rows of a warp in units of 16; its columns are 64. Warps divide the rows, the columns
    and the steps of a stage; ``stages`` of ``steps`` steps are in flight.
    """

    wm: int
    warps_m: int
    warps_n: int
    warps_k: int
    steps: int
    stages: int

    @property
    def rows(self) -> int:
        return 16 * self.wm * self.warps_m

    @property
    def columns(self) -> int:
        return 64 * self.warps_n

    @property
    def threads(self) -> int:
        return 32 * self.warps_m * self.warps_n * self.warps_k

    def shared(self, point: bool, channel_rows: int) -> int:
        """Bytes of shared memory: the stages, later the sums and the bits of the results.

        ``point``: images are single pixels; ``channel_rows``: numbers a channel behind these.
        """
        words = 4 * self.steps
        inputs = self.rows * (words + 4) if point else words * (self.rows + 4)
        stages = 8 * self.stages * (inputs + words * self.columns)
        results = 4 * self.rows * (self.columns + 1) + self.rows * self.columns // 8
        return max(stages, results) + 4 * channel_rows * self.columns

    def blocks(self, rows: int, filters: int, groups: int) -> int:
        return -(-rows // self.rows) * -(-filters // self.columns) * groups


class Cost(NamedTuple):
    """What a block costs: so many run on a processor at a time, in so many microseconds."""

    resident: int
    fixed: float
    per_step: float


# Fitted to what bench_packed_gpu.py --tiles measures on an NVIDIA H200.
COSTS = {
    Tile(4, 2, 2, 1, 2, 4): Cost(2, 12, 0.558),
    Tile(2, 4, 2, 1, 2, 4): Cost(1, 7.7, 0.425),
    Tile(2, 2, 2, 1, 2, 4): Cost(2, 7.06, 0.349),
    Tile(2, 2, 1, 1, 2, 4): Cost(4, 8.2, 0.35),
    Tile(1, 4, 1, 1, 4, 3): Cost(3, 6.13, 0.211),
    Tile(1, 2, 1, 2, 4, 4): Cost(4, 5.54, 0.186),
    Tile(1, 1, 1, 4, 8, 4): Cost(2, 5.16, 0.0694),
}
TILES = tuple(COSTS)
# Several planes need twice the registers for sums, which large tiles have not.
PLANES_TILES = tuple(tile for tile in TILES if tile.wm < 4 and tile.threads <= 128)


@functools.lru_cache(4096)
def choose(rows: int, filters: int, groups: int, steps: int, planes: bool, processors: int) -> Tile:
    """The tile that takes the least time; ``steps`` of the matrix instruction make a sum."""

    def time(tile: Tile) -> float:
        cost = COSTS[tile]
        waves = -(-tile.blocks(rows, filters, groups) // (processors * cost.resident))
        return waves * (cost.fixed + cost.per_step * steps)

    return min(PLANES_TILES if planes else TILES, key=time)
