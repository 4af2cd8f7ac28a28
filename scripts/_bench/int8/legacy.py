"""The int8 of torch.ao: the engine to be no slower than, for as long as torch has it."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from _bench.int8.absent import NotHere
from _bench.int8.resnet import Task
from lowbit.qtensor import QTensor, to_torch_quantized


@functools.cache
def torch_ao() -> SimpleNamespace:
    """``static``, ``dynamic`` and ``quantization`` of torch.ao; NotHere without them."""
    try:
        # torch announces the end of its quantized dtypes wherever it makes one.
        warnings.filterwarnings("ignore", module="torch")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import torch.ao.nn.quantized as static
            import torch.ao.nn.quantized.dynamic as dynamic
            import torch.ao.quantization as quantization

            torch.quantize_per_tensor(torch.zeros(1), 1.0, 0, torch.quint8)
    except (ImportError, AttributeError) as error:
        raise NotHere(f"torch {torch.__version__} has no torch.ao int8: {error}") from error
    return SimpleNamespace(static=static, dynamic=dynamic, quantization=quantization)


def reason() -> str | None:
    """Why it is not here, or None."""
    try:
        torch_ao()
    except NotHere as error:
        return str(error)
    return None


def network(task: Task) -> Callable[[Tensor], Tensor]:
    """ResNet with torchvision's stubs and fused modules, by the default qconfig of "x86"."""
    quantization = torch_ao().quantization
    try:
        from torchvision.models.quantization import resnet
    except ImportError as error:
        raise NotHere(f"torchvision has no quantizable ResNet: {error}") from error
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = resnet.QuantizableResNet(
            resnet.QuantizableBasicBlock, list(task.blocks), num_classes=task.classes
        )
        model.load_state_dict(task.model.state_dict())
        model = model.eval().to(memory_format=torch.channels_last)
        model.fuse_model(is_qat=False)
        model.qconfig = quantization.get_default_qconfig("x86")
        prepared = quantization.prepare(model)
        with torch.no_grad():
            for batch in task.batches():
                prepared(batch)
        return quantization.convert(prepared)


def weighted(ours: nn.Module, kind: str, **arguments: Any) -> nn.Module:
    """``torch.ao.nn.quantized``'s layer of the same integers, scale and zero point.

    ``kind``: "Linear", "Conv2d", …; ``arguments``: its own.
    """
    made = getattr(torch_ao().static, kind)(**arguments)
    bias = ours.bias()
    made.set_weight_bias(to_torch_quantized(ours.weight()), None if bias is None else bias.clone())
    made.scale, made.zero_point = ours.scale, ours.zero_point
    return made


def dynamic(layer: nn.Module) -> nn.Module:
    """``torch.ao.nn.quantized.dynamic``'s layer of a float one, by its default qconfig."""
    found = torch_ao()
    layer.qconfig = found.quantization.default_dynamic_qconfig
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = getattr(found.dynamic, type(layer).__name__).from_float(layer)
    del layer.qconfig
    return made


def tensor(q: QTensor) -> Tensor:
    """A quantized tensor of torch with the integers of q."""
    return to_torch_quantized(q)
