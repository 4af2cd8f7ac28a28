"""The classes that a packed file may name: modules of torch.nn and of lowbit, and no others."""

from __future__ import annotations

import functools
import importlib
import pkgutil

from torch import fx, nn
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear

from lowbit import models, observers, quantizers
from lowbit import nn as layers
from lowbit.convert._float import (
    ChannelsLast,
    FloatConv2d,
    FloatConvolution,
    LaidOutLike,
    OverlappingMaxPool2d,
)
from lowbit.convert._layout import AsTrained
from lowbit.convert._norm import FrozenNorm
from lowbit.convert.int8._islands import Island
from lowbit.nn import packed, qat, quantized
from lowbit.nn.quantized import dynamic
from lowbit.nn.quantized.dynamic._params import QuantizedParams

GRAPH = "torch.fx.GraphModule"

# By names of their own, so that files do not depend on where these are written.
PRIVATE: dict[str, type[nn.Module]] = {
    **{
        f"lowbit.convert.{cls.__name__}": cls
        for cls in (
            AsTrained,
            ChannelsLast,
            FloatConv2d,
            FloatConvolution,
            FrozenNorm,
            Island,
            LaidOutLike,
            OverlappingMaxPool2d,
        )
    },
    "lowbit.nn.quantized.dynamic.QuantizedParams": QuantizedParams,
    "torch.nn.NonDynamicallyQuantizableLinear": NonDynamicallyQuantizableLinear,
}


def name_of(cls: type[nn.Module]) -> str | None:
    """The name of a class in files; None for one that files do not know."""
    if issubclass(cls, fx.GraphModule):  # each has a class of its own
        return GRAPH if cls.__mro__[1] is fx.GraphModule else None
    return _names().get(cls)


def class_of(name: str) -> type[nn.Module] | None:
    """The class of this name; None where files may not name it."""
    return known().get(name)


@functools.cache
def known() -> dict[str, type[nn.Module]]:
    """Every class that a file may name."""
    found = {f"torch.nn.{name}": value for name, value in vars(nn).items()}
    for package in (layers, packed, quantized, dynamic, qat, observers):
        found |= {f"{package.__name__}.{name}": vars(package)[name] for name in package.__all__}
    # Blocks of models are no public names, but they are there where torch.fx cannot follow.
    for package in (models, quantizers):
        for info in pkgutil.iter_modules(package.__path__):
            module = importlib.import_module(f"{package.__name__}.{info.name}")
            found |= {
                f"{package.__name__}.{name}": value
                for name, value in vars(module).items()
                if getattr(value, "__module__", "") == module.__name__
            }
    modules = {
        name: value
        for name, value in found.items()
        if isinstance(value, type) and issubclass(value, nn.Module)
    }
    return modules | PRIVATE


@functools.cache
def _names() -> dict[type[nn.Module], str]:
    return {cls: name for name, cls in reversed(known().items())}
