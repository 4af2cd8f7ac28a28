"""A moving average of the weights, which is evaluated and kept in place of them."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from lowbit.quantizers import Quantizer


class EMA(pl.Callback):
    """a <- d a + (1 - d) w after each step, over parameters and statistics w of the model.

    decay    d
    warmup   after n steps d is at most (1 + n) / (10 + n), so that the first weights are soon
             forgotten; False: d throughout

    Latent weights are averaged as they are kept, and quantized when the average is evaluated.
    What quantizers follow the epoch with, and counters, is copied. Validation and test see the
    average, and so do checkpoints, whose training goes on with the weights themselves, kept
    beside it.

    Source: Polyak and Juditsky 1992; the warm-up is that of TensorFlow's
    ExponentialMovingAverage.
    """

    def __init__(self, decay: float = 0.999, warmup: bool = True) -> None:
        if not 0 <= decay < 1:
            raise ValueError(f"decay of EMA is in [0, 1); got {decay}")
        self.decay = decay
        self.warmup = warmup
        self.average: AveragedModel | None = None
        self._step = 0  # the last step that was averaged
        self._live: dict[str, Tensor] | None = None  # the weights, while the average is evaluated
        self._resumed: dict[str, Any] | None = None

    def _mix(self, averages: list[Tensor], weights: list[Tensor], seen: Tensor) -> None:
        """One update of tensors of one dtype; ``seen`` counts the updates before."""
        if not averages[0].is_floating_point():
            for average, weight in zip(averages, weights, strict=True):
                average.copy_(weight)
            return
        n = float(seen)
        decay = min(self.decay, (1 + n) / (10 + n)) if self.warmup else self.decay
        torch._foreach_lerp_(averages, weights, 1 - decay)

    def on_fit_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        model: nn.Module = pl_module.model
        self.average = AveragedModel(model, multi_avg_fn=self._mix, use_buffers=True)
        self._step = trainer.global_step
        if self._resumed is not None:
            # The model has the average, as the checkpoint does.
            self.average.n_averaged.fill_(self._resumed["updates"])
            model.load_state_dict(self._resumed["weights"])
            self._resumed = None

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, *args: Any) -> None:
        if self.average is None or trainer.global_step == self._step:
            return  # gradients are being accumulated
        self._step = trainer.global_step
        self.average.update_parameters(pl_module.model)
        pairs = zip(self.average.module.modules(), pl_module.model.modules(), strict=True)
        for ours, its in pairs:
            if isinstance(its, Quantizer):
                for a, b in zip(ours.buffers(False), its.buffers(False), strict=True):
                    a.copy_(b)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        if self.average is None or trainer.state.fn != "fit":
            return
        self._live = {k: v.clone() for k, v in pl_module.model.state_dict().items()}
        pl_module.model.load_state_dict(self.average.module.state_dict())

    def on_validation_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        if self.average is None or self._live is None:
            return
        # Statistics that were recalibrated for the average stay with it.
        self.average.module.load_state_dict(pl_module.model.state_dict())
        pl_module.model.load_state_dict(self._live)
        self._live = None

    def on_fit_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        assert self.average is not None
        pl_module.model.load_state_dict(self.average.module.state_dict())

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: Any, checkpoint: dict[str, Any]
    ) -> None:
        if self.average is None:
            return
        weights = {k: v.clone() for k, v in pl_module.model.state_dict().items()}
        checkpoint["ema"] = {"weights": weights, "updates": int(self.average.n_averaged)}
        averaged = self.average.module.state_dict()
        checkpoint["state_dict"] |= {f"model.{k}": v for k, v in averaged.items()}

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: Any, checkpoint: dict[str, Any]
    ) -> None:
        self._resumed = checkpoint.get("ema")
