"""One call of a model, watched: what each module and each function multiplied."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.weak import WeakIdKeyDictionary

from lowbit.nn import QActivation
from lowbit.nn.packed import PackedLayer
from lowbit.summary._inputs import Arguments
from lowbit.summary._layers import layers_of, weights_of
from lowbit.summary._products import Product, SeeProducts

Size = tuple[int, ...]

# What hands on some of the values that it reads, and makes no others. Dropout and Identity give the
# very tensor that they got.
HANDING_ON = (nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d, nn.Flatten)


@dataclass
class Seen:
    """What one module, or one function on one weight, did in the call.

    kind       of a function: "convolution", "linear" or "matmul"; "" for a module
    caller     the path of the module that called the function
    output     shape of its last output, None where that is no tensor
    reads      dtype of its first input
    reads_bits of a quantizer in front of it, by which its first input was made; None: of none
    constants  buffers that were multiplied, by name, and how many numbers each has
    """

    kind: str = ""
    caller: str = ""
    calls: int = 0
    macs: int = 0
    output: Size | None = None
    reads: torch.dtype | None = None
    reads_bits: int | None = None
    constants: dict[str, int] = field(default_factory=dict)


def first_tensor(value: Any) -> Any:
    """The first thing in it with a shape and a dtype; None without one."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, tuple | list):
        found = (first_tensor(part) for part in value)
        return next((part for part in found if part is not None), None)
    return value if hasattr(value, "shape") and hasattr(value, "dtype") else None


def _size(module: Any, output: Any) -> Size | None:
    """The shape of an output; of packed bits, that of the numbers that they stand for."""
    tensor = first_tensor(output)
    if tensor is None:
        return None
    size = list(tensor.shape)
    if isinstance(module, PackedLayer):
        size[-1 - getattr(module, "dims", 0)] = module.out_channels
    return tuple(size)


class _Open(NamedTuple):
    """A call that has begun: of which module, on what, and whether its products are known."""

    name: str
    module: nn.Module
    x: Any
    counted: bool


class Watch:
    """Watches one call of ``model``, a copy: it is left with hooks."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.modules: dict[str, Seen] = {}
        self.functions: dict[tuple[str, str, str], Seen] = {}
        self._stack: list[_Open] = []
        self._bits = WeakIdKeyDictionary()
        self._leaves = {
            name for name, module in layers_of(model) if not any(True for _ in module.children())
        }
        self._buffers = {name: b.numel() for name, b in model.named_buffers()}
        self._names: dict[int, str] = {}
        for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
            self._names.setdefault(_storage(tensor), name)
        for name, module in model.named_modules():
            module.register_forward_pre_hook(
                partial(self._enter, name), with_kwargs=True, prepend=True
            )
            module.register_forward_hook(partial(self._leave, name), with_kwargs=True)

    def run(self, arguments: Arguments) -> None:
        """Call the model. ``ValueError`` names the layer that refused its input."""
        args, kwargs = arguments
        try:
            with _settings(self.model, args, kwargs), SeeProducts(self._product):
                self.model(*args, **kwargs)
        except Exception as error:
            raise ValueError(self._refusal(error)) from error

    def _enter(self, name: str, module: nn.Module, args: Any, kwargs: Any) -> None:
        counted = weights_of(module) is not None
        self._stack.append(_Open(name, module, first_tensor([args, kwargs]), counted))

    def _leave(self, name: str, module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        # Calls that raised, where the model caught it, are above this one.
        while self._stack.pop().module is not module:
            pass
        x = args[0] if args else first_tensor(kwargs)
        seen = self.modules.setdefault(name, Seen())
        seen.calls += 1
        seen.output = _size(module, output)
        came_in = first_tensor([x])
        seen.reads = getattr(came_in, "dtype", None)
        seen.reads_bits = None if came_in is None else self._bits.get(came_in)
        self._note_bits(module, seen.reads_bits, first_tensor([output]))
        weights = weights_of(module)
        if weights is not None and not self._counted():
            seen.macs += weights.products(x, output)

    def _note_bits(self, module: nn.Module, came_in: int | None, output: Any) -> None:
        """Remember of how many bits a QActivation's values are, as far as they are handed on."""
        if isinstance(module, QActivation) and module.input_quantization is not None:
            self._bits[output] = module.input_quantization.bits
        elif came_in is not None and isinstance(module, HANDING_ON):
            self._bits[output] = came_in

    def _counted(self) -> bool:
        """Whether a layer is running whose products are known without looking."""
        return any(call.counted for call in self._stack)

    def _product(self, product: Product) -> None:
        if self._counted():
            return
        caller = self._stack[-1].name if self._stack else ""
        names = (self._names.get(_storage(operand)) for operand in product.operands)
        name = next((name for name in names if name is not None), "")
        seen = self._seen_by(caller, product, name)
        seen.macs += product.macs
        if name in self._buffers:
            seen.constants[name] = self._buffers[name]

    def _seen_by(self, caller: str, product: Product, name: str) -> Seen:
        """A module without others inside has its products; others have a row for each function."""
        if caller in self._leaves:
            return self.modules.setdefault(caller, Seen())
        kind = "linear" if name else "matmul"
        kind = "convolution" if "conv" in product.operator else kind
        row = name or (f"{caller}.{kind}" if caller else kind)
        seen = self.functions.setdefault((caller, row, kind), Seen(kind, caller))
        seen.calls += 1
        seen.output = tuple(product.output.shape)
        seen.reads = product.operands[0].dtype
        return seen

    def _refusal(self, error: Exception) -> str:
        name, module, x, _ = self._stack[-1] if self._stack else _Open("", self.model, None, False)
        kind = type(module).__name__
        who = f"{name} ({kind})" if name else f"the model ({kind})"
        got = "its input" if x is None else f"an input of {tuple(x.shape)}, {x.dtype}"
        return (
            f"{who} refused {got}: {str(error).strip() or type(error).__name__}. A shape is that "
            "of one example, without the batch, as (3, 224, 224); indices need dtype=torch.long; "
            "what is not a batch of shapes can be given as example tensors"
        )


def _storage(tensor: Tensor) -> int:
    """The same number for a tensor and its views, on every device."""
    return tensor.untyped_storage()._cdata


@contextmanager
def _settings(model: nn.Module, args: Any, kwargs: Any) -> Iterator[None]:
    """Without gradients, without changing random numbers, and attention in its single products."""
    tensors = [*model.parameters(), *model.buffers(), *args, *kwargs.values()]
    devices = {t.device for t in tensors if isinstance(t, Tensor) and t.device.type == "cuda"}
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.random.fork_rng(devices), torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
