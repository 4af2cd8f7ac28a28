"""BinaryConnect: weights are binary where gradients are taken, real where they are kept."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

from experiments.recipes.classify import Classify
from lowbit.nn import latent_layers


class BinaryConnect(Classify):
    """Classification with weights that may be evaluated as they are kept.

    evaluate_with   ``binary``, the weights as the layers quantize them (the deterministic
                    method), or ``real``, the latent weights themselves (the stochastic method,
                    whose binary weights have them as their mean)

    Deterministic and stochastic are ``quantizer.weight`` ``sign`` and ``stochastic_sign``. With
    them go the callback ``weight_clip``, ``recalibrate`` (statistics of batch normalisations are
    those of the weights evaluated), and ``glorot`` rates. The rest is ``Classify``'s.

    Source: BinaryConnect, Courbariaux et al. 2015, sections 2.3 to 2.6 and its code.
    """

    def __init__(
        self,
        model: nn.Module,
        num_classes: int,
        optimizer: Callable[[nn.Module], torch.optim.Optimizer],
        scheduler: dict[str, Any] | None = None,
        loss: str = "squared_hinge_sum",
        label_smoothing: float = 0.0,
        mixup: float = 0.0,
        seed: int = 0,
        *,
        evaluate_with: str = "binary",
    ) -> None:
        super().__init__(
            model, num_classes, optimizer, scheduler, loss, label_smoothing, mixup, seed
        )
        if evaluate_with not in ("binary", "real"):
            raise ValueError(f"recipe.evaluate_with is binary or real; got {evaluate_with!r}")
        self.evaluate_with = evaluate_with

    @contextlib.contextmanager
    def evaluating(self) -> Iterator[None]:
        if self.evaluate_with == "binary":
            yield
            return
        kept = [(layer, layer.weight_quantization) for _, layer in latent_layers(self.model)]
        for layer, _ in kept:
            layer.weight_quantization = None
        try:
            yield
        finally:
            for layer, quantizer in kept:
                layer.weight_quantization = quantizer
