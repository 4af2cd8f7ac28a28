"""Carving one set of images out of another, once and for all."""

from __future__ import annotations

import torch
from torch import Tensor

from experiments.data._seeds import generator_of


def carve(labels: Tensor, size: int, seed: int) -> tuple[Tensor, Tensor]:
    """Indices of what remains and of ``size`` images taken out, stratified: ((n - size,), (size,)).

    Every class gives its share of ``size`` to within one image. The split depends on the labels,
    ``size`` and ``seed`` only. What remains is in random order, so that its first k are a fair
    sample of it.
    """
    n = len(labels)
    if not 0 <= size < n:
        raise ValueError(f"cannot take {size} of {n} images: keep at least one to train on")
    shuffled = torch.randperm(n, generator=generator_of(seed))
    by_class = shuffled[torch.argsort(labels[shuffled], stable=True)]
    # Evenly spaced in a list sorted by class: each class in proportion.
    taken = by_class[torch.arange(size) * n // max(size, 1)]
    left = torch.ones(n, dtype=torch.bool)
    left[taken] = False
    return shuffled[left[shuffled]], taken.sort().values
