"""Packed layers for the tests: drawn from seeds, with what the specification says of them."""

import functools
import math
import random
import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from lowbit import kernels
from lowbit.functional import packed_conv as spec
from lowbit.functional.packed_geometry import largest_code, threshold_count
from lowbit.functional.packing import words_for
from lowbit.kernels import Geometry

CODES = [(1, 0), (2, 0), (3, 0), (4, 0), (2, 1), (3, 1), (4, 1)]


class Layer(NamedTuple):
    """Weights and an input: words (planes_w, o, taps, words), x (n, c, ...), its thresholds."""

    geometry: Geometry
    words: Tensor
    x: Tensor
    thresholds: Tensor | None = None

    @property
    def packed(self) -> Tensor:
        g = self.geometry
        return spec.code(self.x, self.thresholds, g.planes_x, bool(g.thermometer_x), g.groups)

    def panel(self, isa: str = "") -> Tensor:
        return kernels.prepare(self.words, self.geometry, isa)

    def expected(
        self,
        out: int = spec.INT,
        params: Tensor | None = None,
        residual: Tensor | None = None,
        steps: Sequence[int] = (),
    ) -> Tensor:
        return spec.packed_conv(
            self.x, self.words, params, self.thresholds, residual, self.geometry, steps, out
        )

    def run(
        self,
        isa: str,
        out: int = spec.INT,
        params: Tensor | None = None,
        residual: Tensor | None = None,
        steps: Sequence[int] = (),
        channels_last: bool = False,
        panel: Tensor | None = None,
        packed: bool = False,
    ) -> Tensor:
        """The operator, from the real input or from the packed one."""
        x, thresholds = (self.packed, None) if packed else (self.x, self.thresholds)
        panel = self.panel(isa) if panel is None else panel
        return kernels.bconv(
            x, panel, params, thresholds, residual, self.geometry, steps, out, channels_last
        )


def drawn_codes(rng: torch.Generator, shape: Sequence[int], planes: int, thermometer: int):
    """Integers that the planes can code, all equally often."""
    count = threshold_count(planes, thermometer)
    drawn = torch.randint(0, count + 1, list(shape), generator=rng)
    return 2 * drawn - largest_code(planes, thermometer)


def layer_of(
    geometry: Geometry, spatial: Sequence[int] = (), n: int = 2, seed: int = 0, per_channel=True
) -> Layer:
    """A layer with these integers, and an input of n images."""
    g, rng = geometry, torch.Generator().manual_seed(seed)
    x = torch.randn(n, g.channels, *spatial, generator=rng)
    kernel = g.kernel[3 - len(spatial) :]
    shape = (g.out_channels, g.channels // g.groups, *kernel)
    codes = drawn_codes(rng, shape, g.planes_w, g.thermometer_w)
    words = spec.prepare_words(codes, g.planes_w, bool(g.thermometer_w))
    thresholds = None
    if g.planes_x > 1 or per_channel:
        count = threshold_count(g.planes_x, g.thermometer_x)
        thresholds = torch.randn(count, g.channels, generator=rng).sort(0).values
        thresholds = thresholds if per_channel else thresholds[:, 0].clone()
    return Layer(g, words, x, thresholds)


def drawn_geometry(rng: random.Random, dims: int) -> Geometry:
    groups = rng.choice([1, 1, 1, 2, 3, 5])
    planes_x, thermometer_x = rng.choice([(1, 0), *CODES])
    planes_w, thermometer_w = rng.choice([(1, 0), (1, 0), *CODES])
    return Geometry.of(
        groups * rng.choice([1, 2, 31, 32, 33, 63, 64, 65, 70, 96, 127, 128, 129, 200]),
        groups * rng.choice([1, 3, 8, 15, 16, 17, 32, 33, 64, 65, 100]),
        groups,
        kernel=[rng.choice([1, 2, 3, 3, 5]) for _ in range(dims)],
        stride=[rng.choice([1, 1, 2, 3, 7]) for _ in range(dims)],
        before=[rng.choice([0, 1, 1, 2, 6]) for _ in range(dims)],
        after=[rng.choice([0, 1, 1, 3, 5]) for _ in range(dims)],
        dilation=[rng.choice([1, 1, 2, 3]) for _ in range(dims)],
        pad=rng.choice([-1, -1, 0, 1, 5, -7]),
        offset=rng.choice([0, 0, 3, -2]),
        planes_x=planes_x,
        planes_w=planes_w,
        thermometer_x=thermometer_x,
        thermometer_w=thermometer_w,
    )


@functools.cache
def drawn(seed: int) -> Layer:
    """Any layer: 0 to 3 spatial axes, images from one pixel to 130 columns."""
    rng = random.Random(seed)
    dims = seed % 4
    g = drawn_geometry(rng, dims)
    spatial = [rng.choice([1, 2, 4, 7]) for _ in range(dims - 1)]
    if dims:
        spatial.append(rng.choice([1, 2, 5, 8, 15, 16, 17, 31, 33, 64, 65, 130]))
    for i, axis in enumerate(range(3 - dims, 3)):
        reach = g.dilation[axis] * (g.kernel[axis] - 1) + 1
        spatial[i] = max(spatial[i], reach - g.before[axis] - g.after[axis])
    n = rng.choice([1, 2, 5]) if dims else rng.choice([1, 3, 17, 70])
    # The specification is slow.
    products = g.taps * g.channels // g.groups * g.out_channels
    n = max(1, min(n, 30_000_000 // (products * math.prod(g.output_size(tuple(spatial))))))
    return layer_of(g, spatial, n, seed, per_channel=rng.random() < 0.5)


@functools.cache
def sums(seed: int) -> Tensor:
    """V of the drawn layer."""
    return drawn(seed).expected()


def pack_channels(bits: Tensor) -> Tensor:
    """Packed signs (n, words, ...) of bits (n, o, ...), one bit at a time."""
    words = torch.zeros(bits.shape[0], words_for(bits.shape[1]), *bits.shape[2:]).long()
    for o in range(bits.shape[1]):
        words[:, o // 64] |= bits[:, o].long() << (o % 64)
    return words


def assert_same(got: Tensor, expected: Tensor) -> None:
    """Equal to the last bit, but that a NaN is a NaN and zeros have no sign."""
    torch.testing.assert_close(got, expected, rtol=0, atol=0, equal_nan=True)


def assert_layout(y: Tensor, channels_last: bool) -> None:
    if channels_last and y.ndim > 2:
        y = y.movedim(1, -1)
    assert y.is_contiguous(), y.stride()


def outcome(call: Callable[[], Tensor]) -> Tensor | Exception:
    """What a call returns, or the refusal that it raises."""
    try:
        return call()
    except (ValueError, RuntimeError) as error:
        return error


def same_or_refused(call: Callable[[], Tensor], expected: Tensor, match: str) -> None:
    """Where a call may be refused, it says why; where it is not, it is right."""
    got = outcome(call)
    if isinstance(got, Tensor):
        assert_same(got, expected)
    else:
        assert not isinstance(got, UnicodeError), got
        assert re.search(match, str(got)), got
