"""The base of our loaders: epochs whose batches depend on (seed, epoch) and on nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from experiments.data._seeds import generator_of
from experiments.data._shares import Shares

Batch = tuple[Tensor, Tensor]  # images (b, channels, height, width) float32, labels (b,) int64


class Epochs:
    """An iterable of batches for Lightning, which continues where a checkpoint left it.

    Lightning tells the ``sampler`` of a loader the epoch before it begins; this loader is its
    own sampler. It also keeps ``state_dict`` in the checkpoint, so that a run resumed in the
    middle of an epoch goes on with the next batch. A subclass writes ``batches``.
    """

    batch_sampler = None  # Lightning asks for it beside ``sampler``

    def __init__(self, shares: Shares, seed: int, shuffle: bool) -> None:
        self.shares = shares
        self.seed = seed
        self.shuffle = shuffle
        self.epoch = 0
        self._done = 0  # batches of this epoch handed out
        self._resume: tuple[int, int] | None = None  # (epoch, step) of a checkpoint

    def batches(self, epoch: int, start: int) -> Iterator[Batch]:
        """The batches of an epoch from step ``start`` on."""
        raise NotImplementedError

    def order(self, epoch: int) -> tuple[Tensor, torch.Generator]:
        """The epoch's order of positions (n,), and the generator for its further draws."""
        generator = generator_of(self.seed, epoch)
        if self.shuffle:
            return torch.randperm(self.shares.size, generator=generator), generator
        return torch.arange(self.shares.size), generator

    def __len__(self) -> int:
        return len(self.shares)

    def __iter__(self) -> Iterator[Batch]:
        # A generator: Lightning makes the iterator before it tells the epoch, so the epoch is
        # read when the first batch is asked for.
        start = 0
        if self._resume is not None:
            epoch, step = self._resume
            start = step if epoch == self.epoch else 0
            self._resume = None
        self._done = start
        for batch in self.batches(self.epoch, start):
            self._done += 1
            yield batch

    @property
    def sampler(self) -> Epochs:
        return self

    def set_epoch(self, epoch: int) -> None:
        if epoch != self.epoch:
            self.epoch = epoch
            self._done = 0

    def state_dict(self) -> dict[str, Any]:
        return {"epoch": self.epoch, "done": self._done}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.epoch = state["epoch"]
        self._done = state["done"]
        self._resume = self.epoch, self._done
