"""Batch norm that trains beside the layer it will be folded into."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

import torch
from torch import Tensor, nn

from lowbit.nn.qat._layer import QatLayer


class FoldedNorm(QatLayer):
    """Mixin: ``bn`` follows the layer, and what is rounded is the weight with ``bn`` folded in.

    With f = bn.weight / sqrt(bn.running_var + bn.eps), one for each output channel,

    y = bn(op(x, fake_quant(weight * f)) / f + bias)

    In eval mode that is op with the folded, rounded weight and the folded bias: what conversion
    makes. In training ``bn`` normalises by the batch, and the weight's scale does not jump with
    it. Where bn.weight is 0, training takes 1 / sqrt(running_var + eps) for f, so that
    nothing divides by 0.

    ``freeze_bn_stats()`` normalises by the running statistics from then on, also in training;
    ``update_bn_stats()`` undoes it.

    Source: Krishnamoorthi 2018, section 3.2.2; Jacob et al. 2018, section 3.2.
    """

    bn: Any
    freeze_bn: bool

    def _set_norm(self, bn: Any, freeze_bn: bool) -> None:
        self.bn = bn.to(device=self.weight.device, dtype=self.weight.dtype)
        self.freeze_bn = freeze_bn
        if freeze_bn:
            self.bn.eval()

    def _take_norm(self, bn: Any) -> Self:
        """Share the parameters and statistics of a batch norm; ValueError where it has none."""
        if bn.weight is None or bn.running_var is None:
            raise ValueError(
                f"qat.{type(self).__name__}: a batch norm that is folded needs affine=True and "
                "track_running_stats=True"
            )
        for name in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked"):
            setattr(self.bn, name, getattr(bn, name))
        return self

    def _factor(self) -> Tensor:
        """What folding multiplies each output channel by, (channels,)."""
        return self.bn.weight / torch.sqrt(self.bn.running_var + self.bn.eps)

    def folded(self) -> tuple[Tensor, Tensor]:
        """Weight and bias with the batch norm folded in, in full precision.

        weight * f and (bias - running_mean) * f + bn.bias; the weight is bit for bit what
        ``weight_fake_quant`` rounds, so that conversion rounds the same numbers.
        """
        factor = self._factor()
        bias = 0 if self.bias is None else self.bias
        weight = self.weight * factor.reshape(-1, *(1,) * (self.weight.ndim - 1))
        return weight, (bias - self.bn.running_mean) * factor + self.bn.bias

    def _folded_into(self, layer: Any) -> Any:
        """A float layer, with the folded weight and bias."""
        layer.weight, layer.bias = (nn.Parameter(value.detach()) for value in self.folded())
        return layer

    def _normed(self, x: Tensor, op: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        """``bn`` of op(x, weight) + bias, with channels on axis 1 of what ``op`` returns."""
        # A channel with factor 0 is nothing but its bias, yet its gradient asks what was normed.
        factor = torch.where(
            self.bn.weight == 0, torch.rsqrt(self.bn.running_var + self.bn.eps), self._factor()
        )
        rest = (1,) * (self.weight.ndim - 2)
        y = op(x, self.weight_fake_quant(self.weight * factor.reshape(-1, 1, *rest)))
        y = y / factor.reshape(1, -1, *rest)
        if self.bias is not None:
            y = y + self.bias.reshape(1, -1, *rest)
        return self.bn(y)

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        if self.freeze_bn:
            self.bn.eval()
        return self

    def update_bn_stats(self) -> Self:
        """Let ``bn`` follow the batches in training."""
        self.freeze_bn = False
        self.bn.train(self.training)
        return self

    def freeze_bn_stats(self) -> Self:
        """Keep the running statistics, and normalise by them."""
        self.freeze_bn = True
        self.bn.eval()
        return self

    def reset_running_stats(self) -> None:
        """Start the running statistics anew."""
        self.bn.reset_running_stats()


def update_bn_stats(module: nn.Module) -> None:
    """``model.apply(update_bn_stats)``: every folded batch norm follows the batches."""
    if isinstance(module, FoldedNorm):
        module.update_bn_stats()


def freeze_bn_stats(module: nn.Module) -> None:
    """``model.apply(freeze_bn_stats)``: no folded batch norm follows the batches."""
    if isinstance(module, FoldedNorm):
        module.freeze_bn_stats()
