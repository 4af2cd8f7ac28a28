"""Int8 layers made of observed ones."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import nn

from lowbit.convert.int8._layers import weighted
from lowbit.nn.quantized._observed import has_seen, output_limits, output_qparams, saw_no_number
from lowbit.observers import FixedQParamsObserver


class Made(NamedTuple):
    """An int8 module, the name of what it was made of, its output, and what runs inside it."""

    source: str
    module: nn.Module
    output: str
    folded: list[str]


def waits_for_data(observer: Any) -> bool:
    """Whether an observer finds its range in data, and was shown none."""
    inside = getattr(observer, "activation_post_process", observer)
    return hasattr(inside, "min_val") and not has_seen(observer)


def check_seen(observer: Any, name: str) -> None:
    """ValueError where an observer was shown nothing, or what is no number."""
    if waits_for_data(observer):
        raise ValueError(
            f"{name} has seen no data, so that there is no scale: call the prepared model on "
            "batches of training data before lowbit.convert"
        )
    if saw_no_number(observer):
        raise ValueError(
            f"{name} has seen NaN or infinities, so that there is no scale: look for them in the "
            "model's weights and in the batches that it was called on, and prepare it anew"
        )


def scale_of(observer: Any, name: str) -> tuple[float, int, tuple[int, int] | None]:
    """Scale, zero point and limits of an observer; ValueError where it was shown nothing."""
    check_seen(observer, name)
    scale, zero_point = output_qparams(observer, name)
    return scale, zero_point, output_limits(observer)


def int8_layer(layer: Any, observer: Any, relu: bool, residual: bool, name: str) -> nn.Module:
    """The int8 layer of a float one with a qconfig, or of one for training.

    ``observer``  of its output, after the ReLU and the sum; None: the output is float32
    """
    entry = weighted(layer)
    assert entry is not None
    if observer is not None:
        check_seen(observer, name)
    # A layer that gives float32 has no scale; one that asks for one gets 1.
    layer.activation_post_process = observer or FixedQParamsObserver(1.0, 0)
    made: Any = entry.int8.from_float(layer)
    del layer.activation_post_process
    kinds = {
        (False, False): entry.int8,
        (True, False): entry.relu,
        (False, True): entry.add,
        (True, True): entry.add_relu,
    }
    made.__class__ = kinds[relu, residual]
    if observer is None:
        made.out_dtype, made.limits = torch.float32, None
    return made
