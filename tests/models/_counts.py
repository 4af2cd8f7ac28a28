"""Parameters and multiply-adds of a model, counted as the papers and model zoos count them."""

from typing import NamedTuple

import torch
from torch import nn

from lowbit.nn import QuantizedLayer

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


def is_binary(module: nn.Module) -> bool:
    return (
        isinstance(module, QuantizedLayer)
        and module.weight_quantization is not None
        and module.input_quantization is not None
    )


def count(model: nn.Module, shape: tuple[int, ...]) -> Counts:
    """Of one image of ``shape``, (channels, h, w); nothing is computed."""
    model = model.to("meta").eval()
    macs = {True: 0, False: 0}

    def of_conv(module, inputs, output):
        macs[is_binary(module)] += output.numel() * module.weight[0].numel()

    def of_linear(module, inputs, output):
        macs[is_binary(module)] += output[..., 0].numel() * module.weight.numel()

    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(of_conv)
        elif isinstance(module, nn.Linear):
            module.register_forward_hook(of_linear)
    model(torch.empty(1, *shape, device="meta"))

    binary = sum(m.weight.numel() for m in model.modules() if is_binary(m))
    real = sum(p.numel() for p in model.parameters()) - binary
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d) and not module.affine:
            real += 2 * module.num_features
    return Counts(binary, real, macs[True], macs[False])
