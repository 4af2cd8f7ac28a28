"""Parameters and multiply-adds of a model, as the papers and model zoos give them."""

from typing import NamedTuple

from torch import nn

import lowbit

MIB = 2**20


class Counts(NamedTuple):
    """``binary`` and ``real`` numbers and multiply-adds.

    Binary: weights of the layers with both quantizers, and their products. A batch norm is two
    numbers a channel, as in larq's summaries, whether it has parameters or not.
    """

    binary: int
    real: int
    binary_macs: int
    real_macs: int

    @property
    def numbers(self) -> int:
        return self.binary + self.real

    @property
    def mib(self) -> float:
        """MiB with one bit for a binary weight and 32 for another number."""
        return (self.binary / 8 + 4 * self.real) / MIB

    @property
    def operations(self) -> float:
        """Real multiply-adds, and 64 binary ones as one: the "OPs" or "Flops" of the papers."""
        return self.real_macs + self.binary_macs / 64


def count(model: nn.Module, shape: tuple[int, ...]) -> Counts:
    """Of one image of ``shape``, (channels, h, w); nothing is computed."""
    found = lowbit.summary(model.to("meta"), shape)
    low_bit = [row for row in found if row.weights and max(row.input_bits, row.weight_bits) < 8]
    binary, macs = sum(row.weights for row in low_bit), sum(row.macs.total for row in low_bit)
    return Counts(binary, found.numbers - binary, macs, found.macs.total - macs)
