"""A model that is compiled for its training steps."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl
import torch

# The modes of torch.compile by name. Those with graphs launch a whole forward or backward at once.
MODES = ("default", "reduce-overhead", "max-autotune")
WITH_GRAPHS = ("reduce-overhead", "max-autotune")


class Compiled(pl.Callback):
    """Compiles ``model`` of the module by ``torch.compile``; training steps run compiled.

    All else runs as it would without. Evaluation is a small part of the time, its batches have
    more sizes, each of which would be compiled anew, and so it gives what ``experiments.eval``
    gives. So does a step in which modules have forward pre-hooks: compiled code does not call
    those that came later (``CancelledGradients`` has some in one step of an epoch).

    The model is compiled in place: its parameters, and so checkpoints, keep their names.

    mode   one of ``MODES``
    """

    def __init__(self, mode: str = "default") -> None:
        if mode not in MODES:
            raise ValueError(f"mode of Compiled is one of {', '.join(MODES)}; got {mode!r}")
        self.mode = mode

    def on_fit_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        pl_module.model.compile(mode=self.mode)
        torch.compiler.set_stance("force_eager")

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: Any, *args: Any) -> None:
        hooked = any(module._forward_pre_hooks for module in pl_module.model.modules())
        torch.compiler.set_stance("force_eager" if hooked else "default")
        if self.mode in WITH_GRAPHS:
            # What the last step left in the graphs' memory is not read again.
            torch.compiler.cudagraph_mark_step_begin()

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, *args: Any) -> None:
        torch.compiler.set_stance("force_eager")

    def on_exception(self, trainer: pl.Trainer, pl_module: Any, exception: BaseException) -> None:
        self._end(pl_module)

    def teardown(self, trainer: pl.Trainer, pl_module: Any, stage: str) -> None:
        self._end(pl_module)

    def _end(self, pl_module: Any) -> None:
        pl_module.model._compiled_call_impl = None  # what nn.Module.compile sets
        torch.compiler.set_stance("default")
