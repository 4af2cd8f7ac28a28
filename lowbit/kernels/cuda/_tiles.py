"""How the work of a packed convolution is divided among the GPU's processors."""

from __future__ import annotations

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

    @property
    def shared(self) -> int:
        """Bytes of shared memory: the stages, and later the sums and the bits of the results."""
        stages = 8 * self.stages * 4 * self.steps * (self.rows + 4 + self.columns)
        return max(stages, 4 * self.rows * (self.columns + 1) + self.rows * self.columns // 8)

    def blocks(self, rows: int, filters: int, groups: int) -> int:
        return -(-rows // self.rows) * -(-filters // self.columns) * groups


# Largest first. Several planes need twice the registers.
TILES = (
    Tile(4, 2, 2, 1, 2, 4),
    Tile(2, 2, 1, 1, 2, 4),
    Tile(1, 2, 1, 2, 4, 4),
    Tile(1, 1, 1, 4, 8, 4),
)
PLANES_TILES = TILES[1:]


def choose(rows: int, filters: int, groups: int, planes: bool, processors: int) -> Tile:
    """The largest tile that keeps all processors busy; the smallest where none does."""
    tiles = PLANES_TILES if planes else TILES
    for tile in tiles:
        if tile.blocks(rows, filters, groups) >= processors:
            return tile
    return tiles[-1]
