"""How many weights change their quantized level."""

from __future__ import annotations

import pytorch_lightning as pl
import torch
from torch import Tensor

from lowbit.nn import QuantizedLayer, latent_layers


def level_codes(values: Tensor, bits: int, axis: int) -> Tensor:
    """The level of each quantized value, as an integer that a change of scale leaves alone.

    Any shape -> the same shape, int64. Where the tensor has more magnitudes than ``bits`` allow,
    each channel along ``axis`` has a scale of its own, and is coded by itself.
    """
    if len(values.abs().unique()) <= 2**bits or values.ndim < 2:
        return _codes(values, bits)
    channels = values.movedim(axis, 0)
    return torch.stack([_codes(channel, bits) for channel in channels]).movedim(0, axis)


def _codes(values: Tensor, bits: int) -> Tensor:
    """Codes of values that share a scale.

    Two levels: which side of their middle (of 0 where there is only one). A uniform grid: the
    number of steps from 0. Anything else: the rank among the levels on its side of 0.
    """
    levels = values.unique()
    if bits == 1:
        middle = (levels[0] + levels[-1]) / 2 if len(levels) == 2 else values.new_zeros(())
        return (values >= middle).long()
    if len(levels) > 1:
        step = levels.diff().min()
        # Grids between the integers exist (-1, -1/3, 1/3, 1): 1/4 tells both kinds apart.
        steps = values / step
        code = torch.floor(steps + 0.25)
        if (steps - code - (steps - code).flatten()[0]).abs().max() < 1e-2:
            return code.long()
    above, below = levels[levels > 0], -levels[levels < 0].flip(0)
    return torch.bucketize(values, above, right=True) - torch.bucketize(-values, below, right=True)


def _layer_codes(layer: QuantizedLayer) -> Tensor:
    quantizer = layer.weight_quantization
    assert quantizer is not None
    with torch.no_grad():
        values = quantizer.value(layer.weight.detach()).float()
    return level_codes(values, quantizer.bits, quantizer.axis)


class FlipRatio(pl.Callback):
    """Logs ``flips/<layer>`` and ``flips/all``: the fraction of weights whose quantized level is
    another at the end of the epoch than at its start.

    A level is a sign or a position on the grid, so a change of scale is no flip.
    """

    def __init__(self) -> None:
        self._before: dict[str, Tensor] = {}

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._before = {n: _layer_codes(layer) for n, layer in latent_layers(pl_module.model)}

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        changed = total = 0
        for name, layer in latent_layers(pl_module.model):
            flips = int((_layer_codes(layer) != self._before[name]).sum())
            pl_module.log(f"flips/{name}", flips / layer.weight.numel())
            changed += flips
            total += layer.weight.numel()
        if total:
            pl_module.log("flips/all", changed / total)
