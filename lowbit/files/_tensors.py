"""Tensors in a file: each once, in the order of its memory, whatever its strides."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from lowbit.files._errors import PackedFileError
from lowbit.files._safetensors import NAMES
from lowbit.files._values import NotPlain

# What stands for a tensor in a description: "float32 8 3 3 3", what it is in the file. Or an
# object of ``is``, this; ``at``, its key, where that is not its place in the model; and ``shape``
# and ``strides`` where it is laid out in another way than in the file.
Reference: TypeAlias = str | dict[str, Any]


class Written:
    """The tensors to write, by key; those that share all their memory have one key."""

    def __init__(self) -> None:
        self.tensors: dict[str, Tensor] = {}
        self._keys: dict[tuple[Any, ...], str] = {}

    def reference(self, tensor: Tensor, place: str, *, named: bool = False) -> Reference:
        """What stands for a tensor, whose key is its ``place`` if it is new there.

        With ``named``, the key is in it whatever it is.

        Raises ``NotPlain`` for one that files cannot hold.
        """
        if type(tensor) not in (Tensor, nn.Parameter) or tensor.dtype not in NAMES:
            raise NotPlain(f"a {type(tensor).__name__} of {tensor.dtype}")
        if tensor.layout != torch.strided or tensor.is_meta:
            raise NotPlain(f"a tensor of layout {tensor.layout} on {tensor.device}")
        tensor = tensor.detach()
        steps = tensor.stride()
        order = sorted(range(tensor.ndim), key=lambda axis: -steps[axis])
        stored = tensor.permute(order)
        if not stored.is_contiguous():  # expanded, or a part of something larger
            tensor = stored = tensor.contiguous()
        if tensor.stride() == _usual_strides(tensor.shape):
            stored = tensor
        key = self._key(stored, place)
        kept = self.tensors[key]
        reference: dict[str, Any] = {"is": kind_of(kept)}
        if named or key != place:
            reference["at"] = key
        if tensor.shape != kept.shape or tensor.stride() != _usual_strides(kept.shape):
            reference |= {"shape": list(tensor.shape), "strides": list(tensor.stride())}
        return reference["is"] if len(reference) == 1 else reference

    def _key(self, stored: Tensor, place: str) -> str:
        memory = (stored.device, stored.data_ptr(), stored.numel(), stored.dtype)
        if stored.numel() and memory in self._keys:
            return self._keys[memory]
        while place in self.tensors:
            place += "_"
        self._keys[memory] = place
        self.tensors[place] = stored
        return place

    def contents(self) -> dict[str, Tensor]:
        """The tensors on the processor, by key."""
        return {key: tensor.cpu().contiguous() for key, tensor in self.tensors.items()}


class Read:
    """The tensors of a file, by key; whatever refers to one of them is given the same one."""

    def __init__(self, tensors: dict[str, Tensor]) -> None:
        self.tensors = tensors
        self._made: dict[str, Tensor] = {}

    def tensor(self, reference: Reference, place: str = "") -> Tensor:
        """The tensor, or the parameter that was made of it."""
        wanted = _wanted(reference, place)
        if wanted not in self._made:
            self._made[wanted] = self._laid_out(reference, place)
        return self._made[wanted]

    def parameter(self, reference: Reference, place: str, learns: bool) -> nn.Parameter:
        """The parameter; with ``learns``, it requires a gradient."""
        wanted = _wanted(reference, place)
        made = self._made.get(wanted)
        if not isinstance(made, nn.Parameter):
            made = nn.Parameter(self._laid_out(reference, place), requires_grad=learns)
            self._made[wanted] = made
        return made

    def _laid_out(self, reference: Reference, place: str) -> Tensor:
        stored = self.tensors[_key_of(reference, place)]
        if isinstance(reference, str) or "strides" not in reference:
            return stored
        shape, strides = reference["shape"], reference["strides"]
        reach = sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
        if math.prod(shape) != stored.numel() or (stored.numel() and reach >= stored.numel()):
            raise PackedFileError(
                f"the tensor {_key_of(reference, place)!r} has {stored.numel()} numbers, which "
                f"shape {shape} with strides {strides} does not: it is damaged"
            )
        return stored.as_strided(shape, strides)


def expected(parts: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """Key and kind of every tensor that a description refers to."""
    prefix = f"{name}." if name else ""
    for group in ("parameters", "buffers"):
        for key, reference in parts.get(group, {}).items():
            if reference is not None:
                yield _key_of(reference, prefix + key), _kind(reference)
    for key, child in parts.get("children", {}).items():
        if child is not None:
            yield from expected(child, prefix + key)
    yield from _in_values(parts.get("attributes", {}))


def _in_values(value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict) and isinstance(value.get("tensor"), dict):
        yield value["tensor"]["at"], value["tensor"]["is"]
    elif isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _in_values(item)


def kind_of(tensor: Tensor) -> str:
    """dtype and sizes: "float32 8 3 3 3"."""
    return " ".join([str(tensor.dtype).removeprefix("torch."), *map(str, tensor.shape)])


def _kind(reference: Reference) -> str:
    return reference if isinstance(reference, str) else str(reference["is"])


def _key_of(reference: Reference, place: str) -> str:
    return place if isinstance(reference, str) else str(reference.get("at", place))


def _wanted(reference: Reference, place: str) -> str:
    layout = None
    if not isinstance(reference, str) and "strides" in reference:
        layout = (reference["shape"], reference["strides"])
    return f"{_key_of(reference, place)} {layout}"


def _usual_strides(shape: Sequence[int]) -> tuple[int, ...]:
    """Those of a new tensor, also where sizes of 1 leave others possible."""
    return torch.empty(tuple(shape), device="meta").stride()
