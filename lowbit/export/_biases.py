"""Biases as integer kernels have them."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn

from lowbit.export._integers import integer_bias
from lowbit.qtensor import QTensor


def integer_biases(model: nn.Module, example: Any) -> nn.Module:
    """A copy whose biases are those of its exported file: whole multiples of the sums' step.

    The step is the scale of a layer's input times that of its weight, by channel. lowbit adds
    biases in float32, integer kernels such as onnxruntime's in int32; what the rounding moves is
    half a step of the sums at most, by which an output here and there is rounded to its other
    neighbour. The copy gives onnxruntime's integers but for ties.

    ``example``: an input, or a tuple of them, that shows the scale of each layer's input.
    ValueError where a layer reads inputs of several scales.
    """
    model = copy.deepcopy(model).eval()
    seen: dict[int, float] = {}

    def rounded(module: Any, inputs: tuple[Any, ...]) -> None:
        x = inputs[0]
        if not isinstance(x, QTensor):
            return
        scale = x.q_scale()
        if seen.setdefault(id(module), scale) != scale:
            raise ValueError(
                f"a {type(module).__name__} reads inputs of the scales {seen[id(module)]} and "
                f"{scale}, and has no one bias in integers for both"
            )
        weight, bias = module.weight(), module.bias()
        scales = torch.as_tensor(weight.scale, dtype=torch.float32)
        zero_points = torch.as_tensor(weight.zero_point)
        shifted = zero_points if bool((zero_points != 0).any()) else None
        whole = integer_bias(scale, weight.values, scales, shifted, bias)
        if whole is not None:
            integers, steps, _ = whole
            module.set_weight_bias(weight, (integers.double() * steps).float())

    hooks = [
        module.register_forward_pre_hook(rounded)
        for module in model.modules()
        if hasattr(module, "set_weight_bias")
        and callable(module.bias)
        and module.bias() is not None
    ]
    with torch.no_grad():
        model(*(example if isinstance(example, tuple) else (example,)))
    for hook in hooks:
        hook.remove()
    return model
