"""What stands for a qconfig here: an object whose ``weight()`` makes an observer."""

from __future__ import annotations

import functools
from types import SimpleNamespace

import torch

from lowbit.observers.min_max import PerChannelMinMaxObserver

PER_CHANNEL = SimpleNamespace(
    weight=functools.partial(
        PerChannelMinMaxObserver, dtype=torch.int8, qscheme="per_channel_symmetric"
    )
)
FLOAT16 = SimpleNamespace(weight=lambda: SimpleNamespace(dtype=torch.float16))
UNSIGNED = SimpleNamespace(weight=lambda: SimpleNamespace(dtype=torch.uint8))
