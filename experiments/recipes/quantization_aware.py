"""Quantization-aware training: a float model learns with the rounding that int8 will have."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

import lowbit
from experiments.recipes.classify import Classify
from lowbit.observers import disable_observer
from lowbit.qconfig import QConfig

LAYERS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


class QuantizationAware(Classify):
    """Classification by ``lowbit.prepare_qat(model)``, whose layers ``lowbit.convert`` makes int8.

    input_quantization    quantizer of activations: one grid for all inputs, that is a range which
                          is averaged or learned
    weight_quantization   quantizer of weights, batch norms folded in
    ends                  bits of the weights of the first and the last layer, and of what the
                          first one reads and hands on, by ``int_k``; None: as the others
    freeze                share of the training after which the statistics of batch norms and the
                          ranges of activations stay as they are; 1: they never do

    The rest is ``Classify``'s. Source: Jacob et al. 2018; Krishnamoorthi 2018, section 3.2.
    """

    def __init__(
        self,
        model: nn.Module,
        num_classes: int,
        optimizer: Callable[[nn.Module], torch.optim.Optimizer],
        scheduler: dict[str, Any] | None = None,
        loss: str = "cross_entropy",
        label_smoothing: float = 0.0,
        mixup: float = 0.0,
        seed: int = 0,
        *,
        input_quantization: Any,
        weight_quantization: Any,
        ends: int | None = 8,
        freeze: float = 0.75,
    ) -> None:
        for name, given in (("input", input_quantization), ("weight", weight_quantization)):
            if given is None:
                raise ValueError(
                    f"recipe=quantization_aware trains for int8, and needs quantizer.{name}, such "
                    "as {name: int_k, bits: 8}; got None"
                )
        if not 0 <= freeze <= 1:
            raise ValueError(f"recipe.freeze is a share of the training, 0 to 1; got {freeze}")
        quantizers = by_layer(model, input_quantization, weight_quantization, ends)
        qconfigs = {name: QConfig(*pair) for name, pair in quantizers.items()}
        super().__init__(
            lowbit.prepare_qat(model.train(), qconfigs),
            num_classes,
            optimizer,
            scheduler,
            loss,
            label_smoothing,
            mixup,
            seed,
        )
        self.prepared = quantizers
        self.freeze = freeze
        self.frozen = False

    @property
    def step_key(self) -> Any:
        return self.frozen

    def on_train_batch_start(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        steps = self.trainer.estimated_stepping_batches
        if not self.frozen and self.freeze < 1 and self.global_step >= self.freeze * steps:
            self.model.apply(disable_observer)
            self.frozen = True
        if self.frozen:
            # At every step, since validation sets them training again.
            for module in self.model.modules():
                if isinstance(module, NORMS):
                    module.eval()


def by_layer(
    model: nn.Module, activation: Any, weight: Any, ends: int | None
) -> dict[str, list[Any]]:
    """Specs of activation and weight quantizer by name of a layer, "" for all that have no own.

    First and last layer have ``int_k`` of ``ends`` bits, where it is a number.
    """
    quantizers: dict[str, list[Any]] = {"": [activation, weight]}
    if ends is not None:
        names = [name for name, module in model.named_modules() if isinstance(module, LAYERS)]
        averaged = {"signed": False, "symmetric": False, "range": "moving_average"}
        for name in names[:1] + names[-1:]:
            quantizers[name] = [
                {"name": "int_k", "bits": ends, **averaged},
                {"name": "int_k", "bits": ends, "per_channel": True},
            ]
    return quantizers
