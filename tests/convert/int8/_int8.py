"""Models as users write them, and what is measured of their int8 forms."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

import lowbit
from lowbit.convert import Converted


def sqnr(reference: Tensor, result: Tensor) -> float:
    """Signal-to-quantization-noise ratio in dB: power of the reference over that of the error."""
    reference, result = reference.detach().double(), result.detach().double()
    return float(10 * torch.log10(reference.square().sum() / (reference - result).square().sum()))


def used(model: nn.Module, seed: int = 0) -> nn.Module:
    """The model in eval mode, its batch norms with drawn statistics and parameters."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for norm in model.modules():
            if not isinstance(norm, _BatchNorm):
                continue
            if norm.running_mean is not None and norm.running_var is not None:
                norm.running_mean.normal_(0, 0.5, generator=generator)
                norm.running_var.uniform_(0.5, 2, generator=generator)
            if norm.affine:
                norm.weight.uniform_(0.5, 1.5, generator=generator)
                norm.bias.normal_(0, 0.3, generator=generator)
    return model.eval()


def to_int8(model: nn.Module, *inputs: Any, qconfig: Any = None) -> Converted:
    """Prepared, shown the inputs once, converted."""
    prepared = lowbit.prepare(model, qconfig)
    prepared(*inputs)
    return lowbit.convert(prepared, to="int8")


def model_of(forward: Callable[..., Any], **modules: nn.Module) -> nn.Module:
    """A module with this ``forward(self, …)`` and these children."""
    model = type("Written", (nn.Module,), {"forward": forward})()
    for name, module in modules.items():
        setattr(model, name, module)
    return used(model)


def conv(inputs: int, outputs: int, size: int = 3, **arguments: Any) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, size, padding=size // 2, **arguments)


def classes(model: nn.Module) -> dict[str, str]:
    """Names of the submodules with the names of their classes."""
    return {name: type(module).__name__ for name, module in model.named_modules() if name}


def images(count: int = 8, channels: int = 3, size: int = 16, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, channels, size, size, generator=generator)
