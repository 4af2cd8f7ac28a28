"""A model, layer by layer: what it is, what it computes, and what conversion makes of it."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from lowbit.summary._call import Watch
from lowbit.summary._inputs import Dtypes, arguments_of
from lowbit.summary._plan import plan_of
from lowbit.summary._result import Summary
from lowbit.summary._rows import rows_of


def summary(
    model: nn.Module,
    input_shape: Any,
    *,
    dtype: Dtypes = None,
    device: torch.device | str | None = None,
) -> Summary:
    """Bits, shapes, sizes, multiply-adds and kernels of every layer, and their totals.

    ``input_shape``  of one example, without the batch: ``(3, 224, 224)``; or an example tensor,
                     with its batch; several inputs are a list, or a mapping by the names of
                     ``forward``'s arguments
    ``dtype``        of the inputs made from shapes, one or one for each; None: that of the
                     model's parameters. Indices need ``torch.long``
    ``device``       where the model is called; None: where it is. "meta" computes nothing, for
                     models whose course does not depend on values

    A copy of the model is called once in eval mode, on noise where a shape was given, and
    ``lowbit.convert`` is asked what it makes of it; the model itself is left alone. Its own
    hooks are called as in any call.

    Multiply-adds are those of this call: of one example for shapes. They count padding, as the
    papers do, and are split by the wider operand's bits, of layers that quantize their input and
    their weight; what is quantized before it reaches a layer counts as float. A layer called
    twice has them twice, its parameters once. Additions alone, norms, pools and activations have
    none. Layers have a row, and so do functions (``F.conv2d``, ``@``) in the ``forward`` of a
    module that has others inside.

    Bytes are those of tensors in ``state_dict``, each once. What conversion adds to the model has
    rows of its own, so that rows and totals agree.

    Raises ``ValueError`` for inputs that the model does not take, with the layer that refused
    them, for lazy and scripted models, and for models that cannot be copied.

    >>> from lowbit.models import MLP
    >>> model = MLP(1, 10, 8, (128, 128), input_quantization="sign", weight_quantization="sign")
    >>> found = summary(model, (1, 8, 8))
    >>> found.macs
    Macs(one_bit=16384, k_bit=0, int8=0, float=9472)
    >>> found.parameters == sum(p.numel() for p in model.parameters())
    True
    """
    model = getattr(model, "_orig_mod", model)  # of torch.compile
    _check(model)
    twin = _copied(model).eval()
    if device is not None:
        twin.to(device)
    tensors = [*twin.parameters(), *twin.buffers()]
    where = tensors[0].device if tensors else torch.device(device or "cpu")
    arguments = arguments_of(twin, input_shape, dtype, where)
    watch = Watch(twin)
    watch.run(arguments)
    plan = plan_of(model)
    notes = [f"not converted: {plan.why}"] if plan.why else []
    return Summary(type(model).__name__, rows_of(model, watch, plan), notes)


def _check(model: nn.Module) -> None:
    for name, module in model.named_modules():
        where = f"{name} ({type(module).__name__})" if name else type(module).__name__
        if isinstance(module, torch.jit.ScriptModule):
            raise ValueError(f"{where} is scripted, which hides its layers: give the module itself")
        tensors = [*module._parameters.values(), *module._buffers.values()]
        if any(tensor is not None and is_lazy(tensor) for tensor in tensors):
            raise ValueError(f"{where} is lazy and has no sizes yet: call the model on data first")


def _copied(model: nn.Module) -> nn.Module:
    try:
        return copy.deepcopy(model)
    except (RuntimeError, TypeError) as error:
        raise ValueError(
            f"the model is called as a copy, and {type(model).__name__} has none: {error}"
        ) from error
