"""Packed operators on drawn operands, for rows about kernels alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from lowbit.functional import packed_conv as specification
from lowbit.kernels import AFFINE, BITS, FLOAT, INT, RESIDUAL, Geometry


class Operands(NamedTuple):
    """What one call of bconv takes, without the form of its output."""

    geometry: Geometry
    words: Tensor
    blob: Tensor
    x: Tensor
    scale: Tensor

    def runner(
        self, out: int, residual: Tensor | None = None, x: Tensor | None = None
    ) -> Callable[[], Tensor]:
        """The call: int32, float after scale and bias (and residual), or bits by thresholds.

        ``x`` instead of the packed input; channels_last where it is spatial.
        """
        source, steps = self.x if x is None else x, []
        params = self.scale if out == FLOAT else None
        if out == FLOAT:
            steps = [AFFINE] if residual is None else [AFFINE, RESIDUAL]
        if out == BITS:
            params = torch.zeros(2, self.geometry.out_channels, dtype=torch.int32)
        op = torch.ops.lowbit.bconv.default
        layer, last = self.geometry.layer(steps), source.ndim > 2

        def call() -> Tensor:
            return op(source, self.blob, params, None, residual, layer, out, last)

        return call

    def check(self) -> None:
        """Integers equal the specification's, on a part of the batch."""
        few = self.x[: min(32, len(self.x))]
        expected = specification.packed_conv(
            few, self.words, None, None, None, self.geometry, [], INT
        )
        ours = self.runner(INT)()[: len(few)]
        if not torch.equal(ours, expected):
            wrong = int((ours != expected).sum())
            raise AssertionError(
                f"{wrong} of {expected.numel()} integers are not the specification's, for "
                f"{self.geometry} and an input {tuple(self.x.shape)}"
            )


def drawn(geometry: Geometry, batch: int, spatial: tuple[int, ...], isa: str = "") -> Operands:
    """Random weights and packed inputs; channels of a group must fill whole words."""
    if geometry.channels // geometry.groups % 64:
        raise ValueError(f"whole words take multiples of 64 channels; got {geometry.channels}")
    generator = torch.Generator().manual_seed(0)

    def bits(*shape: int) -> Tensor:
        halves = torch.randint(-(2**31), 2**31, (2, *shape), generator=generator)
        return (halves[0] << 32) ^ halves[1]

    shape = (geometry.planes_w, geometry.out_channels, geometry.taps, geometry.words)
    words = bits(*shape)
    x = bits(batch, geometry.planes_x * geometry.groups * geometry.words, *spatial)
    blob = torch.ops.lowbit.prepare(words, list(geometry), isa)
    scale = torch.rand(2, geometry.out_channels, generator=generator)
    return Operands(geometry, words, blob, x, scale)


def matrix(m: int, n: int, k: int, isa: str = "") -> Operands:
    """A (m, k) times the transpose of B (n, k)."""
    return drawn(Geometry.of(k, n), m, (), isa)


def convolution(channels: int, size: int, isa: str = "") -> Operands:
    """3 x 3 of one image, padded so that the size stays."""
    ones = {"before": (1, 1), "after": (1, 1)}
    return drawn(Geometry.of(channels, channels, kernel=(3, 3), **ones), 1, (size, size), isa)


def products(operands: Operands) -> int:
    """Binary multiply-adds of one call, with those of the padding."""
    g, spatial = operands.geometry, tuple(operands.x.shape[2:])
    places = len(operands.x)
    for size in g.output_size(spatial):
        places *= size
    return places * g.out_channels * g.taps * (g.channels // g.groups) * g.planes_x * g.planes_w
