"""Training steps that are launched as one CUDA graph."""

from __future__ import annotations

import contextlib
import functools
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.loops.optimization.automatic import Closure
from torch import Tensor, nn
from torch.optim import SGD, Adam, AdamW, Optimizer

from experiments._app import Problem

Step = Callable[[Callable[[], Any]], Any]

# Steps alike that run before one is captured.
WARM_UP = 2

# Whose fused kernels read the learning rate from the GPU's memory.
WITH_LR_ON_GPU = (SGD, Adam, AdamW)


class StepGraph(pl.Callback):
    """Captures forward, loss, backward and update in each epoch's third step; replays the others.

    A small network's step has some hundreds of kernels, which take longer to launch one by one
    than to run. What a step does on the GPU is the same, in the same order. What it does in
    Python, it does while it is captured. So an epoch begins with two steps that run as they would
    without, in which quantizers begin, torch compiles and cuDNN chooses; and so it is again where
    a number of the optimizer's groups, or ``step_key`` of the module, has changed. A learning rate
    that changes at each step is read from the GPU's memory where the optimizer is fused; with
    another optimizer such steps are not captured, which a warning says. Steps of another batch
    size, or with forward pre-hooks, run as they would without.

    Steps run on a stream of their own: autograd waits for the one on which it first saw a
    parameter, and a graph cannot wait for the default one.
    """

    def __init__(self) -> None:
        self._batch: list[Tensor] = []  # of this step
        self._modules: list[nn.Module] = []
        self._seen: Any = None  # key and sizes of the steps that ran last, and how many they were
        self._warm = 0
        self._steps = 0  # in this epoch
        self._replayed = 0
        self._warned = False
        self._static: list[Tensor] = []  # what the graph reads
        self._rates: list[tuple[dict[str, Any], Tensor]] = []  # groups, and their rate there
        self._key: Any = None
        self._result: Any = None  # what the captured step returned to Lightning
        self._graph: Any = None
        self._pool: Any = None
        self._stepped: tuple[Optimizer, Step] | None = None
        self._before: Any = None  # the stream to go back to

    def setup(self, trainer: pl.Trainer, pl_module: Any, stage: str) -> None:
        if stage == "fit" and trainer.world_size > 1:
            raise Problem(
                "cuda_graph=true is for one GPU, and this training has "
                f"{trainer.world_size} processes; give cuda_graph=false"
            )
        if stage == "fit" and trainer.strategy.root_device.type != "cuda":
            raise Problem(
                "cuda_graph=true needs an NVIDIA GPU, and this training runs on "
                f"{trainer.strategy.root_device.type}; give trainer=gpu, or cuda_graph=false"
            )

    def on_fit_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        self._before = enter_stream()
        self._pool = new_pool()

    def on_train_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        optimizer = trainer.optimizers[0]
        self._stepped = optimizer, optimizer.step
        replaced = functools.partial(self._step, optimizer.step, optimizer, pl_module)
        # Or a scheduler warns that its own wrapper is gone, which is inside.
        replaced._wrapped_by_lr_sched = True  # type: ignore[attr-defined]
        optimizer.step = replaced  # type: ignore[method-assign]

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        self._steps = self._replayed = 0
        # Once an epoch: to find them takes as long as a step.
        self._modules = list(pl_module.model.modules())

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        if self._replayed == 0 and self._steps > WARM_UP and not self._warned:
            self._warned = True
            warnings.warn(
                f"cuda_graph=true: none of {self._steps} steps was replayed, since a number of "
                "the optimizer changed before each (a rate that changes at each step is read "
                "from memory by fused SGD, Adam and AdamW alone)",
                stacklevel=2,
            )

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: Any, batch: Any, batch_idx: int
    ) -> None:
        self._batch = list(batch)

    def _step(
        self, step: Step, optimizer: Optimizer, pl_module: Any, closure: Callable[[], Any]
    ) -> Any:
        """In place of ``optimizer.step(closure)``; the closure is Lightning's, in a partial."""
        self._steps += 1
        if any(module._forward_pre_hooks for module in self._modules):
            self._seen = None
            return step(closure)
        key = pl_module.current_epoch, pl_module.step_key, *self._numbers(optimizer)
        sizes = [x.shape for x in self._batch]
        if key == self._key:
            if sizes != [x.shape for x in self._static]:
                return step(closure)
            for static, x in zip(self._static, self._batch, strict=True):
                static.copy_(x)
        else:
            self._warm = self._warm if (key, sizes) == self._seen else 0
            self._seen = key, sizes
            if self._warm < WARM_UP:
                self._warm += 1
                return step(closure)
            self._capture(step, optimizer, closure)
            self._key = key
        self._replayed += 1
        for group, rate in self._rates:
            rate.fill_(group["lr"])
        self._graph.replay()
        inner = innermost(closure)
        if self._result is None:
            self._result = inner._result
        inner._result = self._result  # which Lightning asks the closure for
        return self._result.loss

    def _numbers(self, optimizer: Optimizer) -> Iterator[Any]:
        """What a captured step has of the optimizer's options; not rates in the GPU's memory."""
        for owner, group in groups_of(optimizer):
            yield from (
                value
                for name, value in group.items()
                if name != "params" and not (name == "lr" and reads_lr(owner, group))
            )

    def _capture(self, step: Step, optimizer: Optimizer, closure: Callable[[], Any]) -> None:
        self._check(optimizer)
        self._static, self._result = self._batch, None
        read = [group for owner, group in groups_of(optimizer) if reads_lr(owner, group)]
        device = self._static[0].device
        self._rates = [(group, torch.full((), float(group["lr"]), device=device)) for group in read]
        kept = [(group, group["lr"], group.get("capturable")) for group in read]
        optimizer.zero_grad(set_to_none=True)
        for group, rate in self._rates:
            group["lr"] = rate
            if "capturable" in group:
                group["capturable"] = True
        try:
            self._graph = captured(lambda: step(closure), self._pool)
        except Exception as error:
            raise Problem(
                f"cuda_graph=true: the training step cannot be captured ({error}); "
                "give cuda_graph=false"
            ) from error
        finally:
            for group, lr, capturable in kept:
                group["lr"] = lr
                if capturable is not None:
                    group["capturable"] = capturable

    def _check(self, optimizer: Optimizer) -> None:
        for state in optimizer.state.values():
            for name, value in state.items():
                if isinstance(value, Tensor) and value.device != self._batch[0].device:
                    raise Problem(
                        f"cuda_graph=true: {name} of {type(optimizer).__name__} is on "
                        f"{value.device}, where a graph cannot read it; an optimizer with "
                        "fused=true or capturable=true keeps it on the GPU"
                    )

    def on_exception(self, trainer: pl.Trainer, pl_module: Any, exception: BaseException) -> None:
        self._end()

    def teardown(self, trainer: pl.Trainer, pl_module: Any, stage: str) -> None:
        self._end()

    def _end(self) -> None:
        if self._stepped is not None:
            optimizer, step = self._stepped
            optimizer.step = step  # type: ignore[method-assign]
        if self._before is not None:
            leave_stream(self._before)
        self.__init__()  # type: ignore[misc]


def innermost(closure: Any) -> Closure:
    """Lightning's closure, which its precision plugin hands to the optimizer as an argument."""
    while isinstance(closure, functools.partial):
        closure = closure.args[-1]
    if not isinstance(closure, Closure):
        raise TypeError(f"the optimizer was given a {type(closure).__name__} for a closure")
    return closure


def groups_of(optimizer: Optimizer) -> Iterator[tuple[Optimizer, dict[str, Any]]]:
    """Each group with the optimizer that reads it, of one or of a ``CaseOptimizer``."""
    for owner in getattr(optimizer, "optimizers", [optimizer]):
        for group in owner.param_groups:
            yield owner, group


def reads_lr(owner: Optimizer, group: dict[str, Any]) -> bool:
    return isinstance(owner, WITH_LR_ON_GPU) and bool(group.get("fused"))


def enter_stream() -> Any:
    """Make a new stream the current one; the one before."""
    before = torch.cuda.current_stream()
    stream = torch.cuda.Stream()
    stream.wait_stream(before)
    torch.cuda.set_stream(stream)
    return before


def leave_stream(before: Any) -> None:
    before.wait_stream(torch.cuda.current_stream())
    torch.cuda.set_stream(before)


def new_pool() -> Any:
    """Memory that one graph after the other takes; they never run at the same time."""
    return torch.cuda.graph_pool_handle()


def captured(run: Callable[[], Any], pool: Any) -> Any:
    """A graph of what ``run`` launches on the current stream, which is not run by that.

    ``torch.cuda.graph`` does the same, and before it collects garbage and empties the cache of
    memory, which takes longer than the capture.
    """
    graph = torch.cuda.CUDAGraph()
    torch.cuda.synchronize()
    graph.capture_begin(pool=pool, capture_error_mode="thread_local")
    try:
        run()
    except BaseException:
        with contextlib.suppress(Exception):  # whose error would hide this one, its cause
            graph.capture_end()
        raise
    graph.capture_end()
    return graph
