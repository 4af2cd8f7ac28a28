"""Parameters that start from the first batch: once, on every process alike, and never again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from lowbit.quantizers._base import Quantizer


def mean_over_processes(x: Tensor) -> Tensor:
    """The mean of x over all processes of a distributed training; x itself in a single one."""
    if not (dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1):
        return x
    x = x.detach().clone()
    dist.all_reduce(x)
    return x / dist.get_world_size()


class DataInitialised(Quantizer):
    """Base of quantizers whose parameters take their first values from the first batch.

    A subclass writes ``initial(x)``: parameter name -> value computed from x. The first
    forward in training mode stores it, averaged over the processes of a distributed training;
    before that, evaluation uses the parameters as they were made. ``initialised`` is a buffer,
    so a checkpoint says whether the values in it are to be kept.
    """

    initialised: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("initialised", torch.tensor(False))
        # The buffer's twin in Python: a graph cannot branch on a tensor's value. It may lag
        # behind where the buffer alone was copied, as EMA and DDP do.
        self._ready = False

    def initial(self, x: Tensor) -> dict[str, Tensor]:
        """First values of the parameters, from the first batch x."""
        raise NotImplementedError

    def initialise(self, x: Tensor) -> None:
        """Take the parameters' first values from x, unless they have been taken already."""
        if self._ready or not self.training or x.numel() == 0:
            return
        if not torch.compiler.is_compiling() and not x.is_meta and bool(self.initialised):
            self._ready = True
            return
        with torch.no_grad():
            for name, value in self.initial(x.detach().float()).items():
                parameter = self.get_parameter(name)
                parameter.copy_(mean_over_processes(value).reshape(parameter.shape))
            self.initialised.fill_(True)
        self._ready = True

    def _load_from_state_dict(
        self, state_dict: Mapping[str, Any], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)
        self._ready = bool(self.initialised)
