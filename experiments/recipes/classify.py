"""Supervised classification: one model, one loss, one optimizer."""

from __future__ import annotations

import contextlib
import inspect
import math
from collections.abc import Callable, Iterator
from typing import Any

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from experiments._app import Problem
from experiments._numbers import at_least, is_number
from experiments.recipes._losses import LOSSES, smooth
from experiments.recipes._metrics import MeanOverImages, TopK


class Classify(pl.LightningModule):
    """Trains ``model``: images (n, channels, height, width) -> scores (n, num_classes).

    optimizer        called with the model
    scheduler        None, or ``{"factory": …, "interval": "step" | "epoch"}``; the factory is
                     called with the optimizer, and with ``steps_per_epoch`` where it takes it
    loss             ``cross_entropy``, ``squared_hinge_mean`` or ``squared_hinge_sum``
    label_smoothing  how much of a label's probability is spread over all classes
    mixup            alpha of the Beta distribution that images are mixed by (Zhang et al. 2018,
                     "mixup: Beyond Empirical Risk Minimization"); 0: off
    seed             of dropout, mixup and stochastic quantizers, drawn anew in every epoch

    Logs ``{train,val,test}/loss`` and ``/accuracy`` (a fraction), and ``/accuracy_top5`` where
    there are 50 classes or more.
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
    ) -> None:
        super().__init__()
        if loss not in LOSSES:
            raise ValueError(f"recipe.loss is one of {', '.join(LOSSES)}; got {loss!r}")
        if not (is_number(label_smoothing) and 0 <= label_smoothing < 1):
            raise ValueError(f"recipe.label_smoothing is in [0, 1); got {label_smoothing!r}")
        at_least("recipe.mixup, 0 for off,", mixup, 0)
        if scheduler is not None and scheduler["interval"] not in ("step", "epoch"):
            raise ValueError(
                f"scheduler.interval is 'step' or 'epoch'; got {scheduler['interval']!r}"
            )
        self.model = model
        self.num_classes = num_classes
        self.make_optimizer = optimizer
        self.scheduler = scheduler
        self.loss = LOSSES[loss]
        self.label_smoothing = label_smoothing
        self.mixup = mixup
        self.seed = seed
        ks = {"accuracy": 1, **({"accuracy_top5": 5} if num_classes >= 50 else {})}
        self.metrics = nn.ModuleDict(
            {
                f"{stage}_metrics": nn.ModuleDict(
                    {
                        "loss": MeanOverImages(),
                        **{name: TopK(k) for name, k in ks.items()},
                    }
                )
                for stage in ("train", "val", "test")
            }
        )
        self._logged: set[str] = set()  # the stages whose metrics this epoch has logged

    @property
    def step_key(self) -> Any:
        """What a training step has of this module beside tensors, where that changes between
        two steps of an epoch."""
        return None

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x)

    def on_train_epoch_start(self) -> None:
        """Draw what is random in this epoch from (seed, epoch, process): a resumed run has it."""
        self._logged.discard("train")
        key = (self.seed * 1_000_003 + self.current_epoch) * 4_099 + self.global_rank
        torch.manual_seed(key % 2**63)

    def on_validation_epoch_start(self) -> None:
        self._logged.discard("val")

    def on_test_epoch_start(self) -> None:
        self._logged.discard("test")

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        x, labels = batch
        target = F.one_hot(labels, self.num_classes).to(x.dtype)
        if self.mixup > 0:
            share = float(torch.distributions.Beta(self.mixup, self.mixup).sample())
            other = torch.randperm(len(x), device=x.device)
            x = share * x + (1 - share) * x[other]
            target = share * target + (1 - share) * target[other]
            labels = target.argmax(-1)
        scores = self(x)
        loss = self.objective(x, scores, target)
        self._log("train", loss, scores, labels)
        return loss

    def objective(self, x: Tensor, scores: Tensor, target: Tensor) -> Tensor:
        """What training makes small: of the scores of images x, for target probabilities."""
        return self.loss(scores, smooth(target, self.label_smoothing))

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        self._evaluate("val", batch)

    def test_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        self._evaluate("test", batch)

    @contextlib.contextmanager
    def evaluating(self) -> Iterator[None]:
        """What the model is while it is evaluated: here, what it is in training."""
        yield

    def _evaluate(self, stage: str, batch: tuple[Tensor, Tensor]) -> None:
        x, labels = batch
        with self.evaluating():
            scores = self(x)
        loss = self.loss(scores, F.one_hot(labels, self.num_classes).to(scores.dtype))
        self._log(stage, loss, scores, labels)

    def _log(self, stage: str, loss: Tensor, scores: Tensor, labels: Tensor) -> None:
        """Count a batch. Lightning computes a logged metric at the end of the epoch, so that it
        is logged once: `log` in every step costs as much as the step of a small network.
        """
        metrics = self.metrics[f"{stage}_metrics"]
        for name, metric in metrics.items():
            given = (loss.detach(), len(labels)) if name == "loss" else (scores.detach(), labels)
            metric.update(*given)
        if stage not in self._logged:
            self._logged.add(stage)
            for name, metric in metrics.items():
                self.log(f"{stage}/{name}", metric, on_step=False, on_epoch=True)

    def make_scheduler(self, optimizer: torch.optim.Optimizer, steps_per_epoch: int) -> Any:
        """The learning-rate scheduler; None where there is none."""
        if self.scheduler is None:
            return None
        factory = self.scheduler["factory"]
        takes = inspect.signature(factory).parameters
        steps = steps_per_epoch if self.scheduler["interval"] == "step" else 1
        given = {"steps_per_epoch": steps} if "steps_per_epoch" in takes else {}
        return factory(optimizer, **given)

    def configure_optimizers(self) -> Any:
        optimizer = self.make_optimizer(self.model)
        if self.scheduler is None:
            return optimizer
        _ = self.trainer.estimated_stepping_batches  # makes the loader, which has the length
        batches = self.trainer.num_training_batches
        if not 0 < batches < math.inf:
            raise Problem(
                f"an epoch has {batches} steps: trainer.limit_train_batches="
                f"{self.trainer.limit_train_batches} leaves none, or the data do not say how many"
            )
        scheduler = self.make_scheduler(
            optimizer, math.ceil(batches / self.trainer.accumulate_grad_batches)
        )
        # Always "step": Lightning takes the steps of an epoch after it has written the
        # checkpoint of that epoch, so that a resumed run would lack one.
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": "step"},
        }

    def lr_scheduler_step(self, scheduler: Any, metric: Any) -> None:
        assert self.scheduler is not None
        if self.scheduler["interval"] == "step" or self.trainer.is_last_batch:
            scheduler.step()
