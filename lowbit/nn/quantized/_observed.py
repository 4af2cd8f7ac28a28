"""Reading modules that were calibrated or trained: their weights, observers and fake quantizers.

Nothing here depends on a class of observer. One has ``dtype``, ``qscheme``, ``quant_min``,
``quant_max``, ``ch_axis`` per channel, ``calculate_qparams()``, and takes a tensor in a call.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights, fuse_linear_bn_weights
from torch.nn.utils.parametrize import type_before_parametrizations

from lowbit.functional.int8 import limits, plain_dtype
from lowbit.nn.quantized._inputs import described
from lowbit.qtensor import QTensor, from_torch_quantized, quantize_per_channel, quantize_per_tensor


class Observed(NamedTuple):
    """A float layer and what observes it; ``output`` is None where nothing does."""

    layer: Any
    weight: Tensor
    bias: Tensor | None
    weight_observer: Any
    output: Any


def observed(
    mod: nn.Module, float_types: Sequence[type[nn.Module]], name: str, *, relu: bool = False
) -> Observed:
    """The parts of ``mod`` that ``name``.from_float needs.

    mod   one of ``float_types`` with a ``qconfig``, or with a ``weight_fake_quant``; ``relu``:
          followed by a ReLU, as a sequence of the two. A batch norm inside (``bn``), as in
          fused training layers, is folded into the weight.

    Raises TypeError for other modules, ValueError without a qconfig.
    """
    if hasattr(mod, "weight_fake_quant"):
        if not isinstance(mod, tuple(float_types)) or relu != _ends_in_relu(mod):
            raise TypeError(_only_works_for(name, float_types, mod, relu))
        weight, bias = _folded(mod)
        output = getattr(mod, "activation_post_process", None)
        return Observed(mod, weight, bias, mod.weight_fake_quant, output)
    layer: Any = mod
    if relu:
        # The observer of a sequence is one of its children too.
        parts = [part for key, part in mod.named_children() if key != "activation_post_process"]
        pair = isinstance(mod, nn.Sequential) and len(parts) == 2 and isinstance(parts[1], nn.ReLU)
        layer = parts[0] if pair else None
    if layer is None or type_before_parametrizations(layer) not in float_types:
        raise TypeError(_only_works_for(name, float_types, mod, relu))
    qconfig = _qconfig(layer, name) if layer is mod or hasattr(layer, "qconfig") else None
    qconfig = _qconfig(mod, name) if qconfig is None else qconfig
    output = getattr(mod, "activation_post_process", None)
    return Observed(layer, layer.weight, layer.bias, qconfig.weight(), output)


def _ends_in_relu(mod: nn.Module) -> bool:
    """Whether a fused training layer has a ReLU: its name tells, lowbit's as torch's."""
    return "ReLU" in type_before_parametrizations(mod).__name__


def _qconfig(mod: nn.Module, name: str) -> Any:
    qconfig = getattr(mod, "qconfig", None)
    if qconfig is None:
        raise ValueError(
            f"{name}.from_float: the {type(mod).__name__} has no qconfig, which says how to "
            "quantize its weight; set mod.qconfig, or use lowbit.prepare"
        )
    return qconfig


def _only_works_for(
    name: str, float_types: Sequence[type[nn.Module]], mod: nn.Module, relu: bool
) -> str:
    known = ", ".join(kind.__name__ for kind in float_types)
    known = f"a sequence of {known} and ReLU, or a training layer of both" if relu else known
    return f"{name}.from_float takes {known}, not {type(mod).__name__}"


def _folded(mod: Any) -> tuple[Tensor, Tensor | None]:
    """Weight and bias of a training layer, with its batch norm folded in where it has one."""
    if hasattr(mod, "folded"):
        return mod.folded()
    norm = getattr(mod, "bn", None)
    if norm is None:
        return mod.weight, mod.bias
    statistics = (norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias)
    if isinstance(mod, nn.Linear):
        return fuse_linear_bn_weights(mod.weight, mod.bias, *statistics)
    transposed = bool(getattr(mod, "transposed", False))
    return fuse_conv_bn_weights(mod.weight, mod.bias, *statistics, transpose=transposed)


def quantized_weight(weight: Tensor, observer: Any, *, observe: bool = True) -> QTensor:
    """The weight in int8 with the observer's scales, within its quant_min and quant_max.

    ``observe``: show it the weight first, if it has not seen one yet: a fake quantizer keeps the
    scale that the model was trained with, which looking once more would move. One with a
    ``quantizer`` rounds in a way of its own: it is shown the weight in any case, and what it
    returns is whole numbers of its scale. ValueError where the observer's dtype is not int8, and
    where the weight is not finite.
    """
    weight = weight.detach()
    check_finite(weight)
    if hasattr(observer, "quantizer"):
        was_training = observer.training
        weight = observer.eval()(weight).detach()
        observer.train(was_training)
    elif observe and not has_seen(observer):
        observer(weight)
    dtype = plain_dtype(observer.dtype)
    if dtype != torch.int8:
        raise ValueError(
            f"weights are quantized to int8, not {dtype}: give the qconfig a weight observer "
            "with dtype int8"
        )
    return _quantize(weight.float(), observer, dtype)


def check_finite(weight: Tensor) -> None:
    """ValueError for a weight with NaN or infinities."""
    if not bool(weight.isfinite().all()):
        raise ValueError("the weight has NaN or infinities in it, which no integers stand for")


def has_seen(observer: Any) -> bool:
    """Whether a fake quantizer, or an observer, was shown anything."""
    low, high = _range(observer)
    # A range that nothing went into is empty, or begins at infinity and ends at minus infinity.
    return low is not None and low.numel() > 0 and not bool((low > high).any())


def saw_no_number(observer: Any) -> bool:
    """Whether NaN or an infinity was in what a fake quantizer, or an observer, was shown."""
    return has_seen(observer) and not all(bool(end.isfinite().all()) for end in _range(observer))


def _range(observer: Any) -> tuple[Any, Any]:
    inside = getattr(observer, "activation_post_process", observer)
    return getattr(inside, "min_val", None), getattr(inside, "max_val", None)


def _quantize(weight: Tensor, observer: Any, dtype: torch.dtype) -> QTensor:
    scale, zero_point = observer.calculate_qparams()
    scheme = scheme_of(observer)
    if scheme.startswith("per_tensor"):
        q = quantize_per_tensor(weight, float(scale), int(zero_point), dtype)
    else:
        q = quantize_per_channel(weight, scale, zero_point, observer.ch_axis, dtype)
    # A fake quantizer of torch keeps its limits in the observer inside.
    ends = getattr(observer, "activation_post_process", observer)
    return q.with_values(q.values.clamp(ends.quant_min, ends.quant_max))


def scheme_of(observer: Any) -> str:
    """The name of an observer's qscheme: by its name alone, as torch may lose the type."""
    return str(observer.qscheme).removeprefix("torch.")


def output_qparams(observer: Any, name: str) -> tuple[float, int]:
    """Scale and zero point that an observer of outputs has come to; ValueError without one."""
    if observer is None:
        raise ValueError(
            f"{name}.from_float: no activation_post_process observed the output, which its "
            "scale comes from; prepare the model and show it data first"
        )
    scale, zero_point = observer.calculate_qparams()
    return float(scale), int(zero_point)


def output_limits(observer: Any) -> tuple[int, int] | None:
    """The integers that a fake quantizer clamps to, if they are not all of its dtype; else None.

    An observer that only looks has none: torch takes all integers of the dtype after one that
    looked for 7 bits.
    """
    if not hasattr(observer, "fake_quant_enabled"):
        return None
    ends = (int(observer.quant_min), int(observer.quant_max))
    return None if ends == limits(plain_dtype(observer.dtype)) else ends


def output_dtype(observer: Any) -> torch.dtype | None:
    """The plain dtype that an observer of outputs asks for; None for a floating-point one."""
    dtype = getattr(observer, "dtype", torch.uint8)
    if isinstance(dtype, torch.dtype) and dtype.is_floating_point:
        return None
    return plain_dtype(dtype)


def as_qtensor(weight: Any) -> QTensor:
    """A QTensor, or the one of a quantized tensor of torch; TypeError for others."""
    if isinstance(weight, QTensor):
        return weight
    if isinstance(weight, Tensor) and getattr(weight, "is_quantized", False):
        return from_torch_quantized(weight)
    raise TypeError(
        f"a quantized weight is a QTensor, not {described(weight)}; "
        "lowbit.quantize_per_tensor and quantize_per_channel make one"
    )
