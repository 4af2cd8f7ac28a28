"""Which images of an epoch each process of a distributed run takes at each step."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Shares:
    """The steps of one epoch over ``size`` images, seen from one process.

    Step k of the run is the slice [k w b, (k + 1) w b) of the epoch's order, with w
    ``world_size`` and b ``batch_size`` (images per process); process r takes the r-th part of
    it. So w processes at b see, step by step, what one process sees at w b. All processes take
    equally many steps, so that none waits for another.

    The last step, where less than w b images are left:

    training     dropped if ``drop_last``; else shared equally, up to w - 1 images left over
    evaluation   every image exactly once: parts differ by one image at most, and a rest too
                 small to give each process an image joins the step before it. Metrics must
                 weigh by images (those of torchmetrics do).
    """

    size: int
    batch_size: int
    training: bool
    drop_last: bool = True
    rank: int = 0
    world_size: int = 1

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise ValueError(f"batch_size must be at least 1; got {self.batch_size}")
        if not 0 <= self.rank < self.world_size:
            raise ValueError(f"there is no process {self.rank} among {self.world_size}")
        if self.size and not len(self):
            raise ValueError(
                f"{self.size} images make no step of {self.world_size} x {self.batch_size} images "
                "(processes x batch_size); take a smaller batch_size, a larger limit"
                + (", or drop_last=false" if self.training and self.drop_last else "")
            )

    @property
    def _last(self) -> tuple[int, int]:
        """How many full steps there are, and how many images the step after them has."""
        full, rest = divmod(self.size, self.world_size * self.batch_size)
        if self.training:
            return full, 0 if self.drop_last else rest - rest % self.world_size
        if full and 0 < rest < self.world_size:
            return full - 1, rest + self.world_size * self.batch_size
        return full, rest if rest >= self.world_size else 0

    def __len__(self) -> int:
        full, rest = self._last
        return full + (rest > 0)

    def part(self, step: int) -> slice:
        """Positions in the epoch's order that this process takes at ``step``."""
        full, rest = self._last
        start = step * self.world_size * self.batch_size
        images = rest if step == full else self.world_size * self.batch_size
        return slice(
            start + images * self.rank // self.world_size,
            start + images * (self.rank + 1) // self.world_size,
        )
