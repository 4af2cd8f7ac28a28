"""The arguments of one call, of a shape, of several shapes, or of example tensors."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

Arguments = tuple[tuple[Any, ...], dict[str, Any]]
Dtypes = torch.dtype | Sequence[torch.dtype] | None


def is_shape(given: Any) -> bool:
    """Whether it is one shape, not several inputs."""
    return isinstance(given, Sequence) and all(
        isinstance(size, int) and not isinstance(size, bool) for size in given
    )


def arguments_of(model: nn.Module, given: Any, dtype: Dtypes, device: torch.device) -> Arguments:
    """Positional and named arguments for ``model.forward``; a shape becomes a batch of one.

    Raises ``ValueError`` for what is neither shape nor tensor, and where ``forward`` takes other
    arguments.
    """
    names = list(given) if isinstance(given, Mapping) else None
    if names is not None:
        inputs = list(given.values())
    elif isinstance(given, int | Tensor) or is_shape(given):
        inputs = [(given,) if isinstance(given, int) else given]
    elif isinstance(given, Sequence) and not isinstance(given, str):
        inputs = list(given)
    else:
        inputs = [given]
    dtypes = _dtypes(model, dtype, len(inputs))
    made = [_input(one, kind, device) for one, kind in zip(inputs, dtypes, strict=True)]
    args = () if names is not None else tuple(made)
    kwargs = {} if names is None else dict(zip(names, made, strict=True))
    _check_signature(model, args, kwargs)
    return args, kwargs


def _dtypes(model: nn.Module, dtype: Dtypes, count: int) -> list[torch.dtype]:
    if dtype is None:
        floats = (p.dtype for p in model.parameters() if p.is_floating_point())
        dtype = next(floats, torch.get_default_dtype())
    if isinstance(dtype, torch.dtype):
        return [dtype] * count
    if len(dtype) != count:
        raise ValueError(
            f"dtype is one for all inputs, or one for each: {len(dtype)} were given for {count}"
        )
    return list(dtype)


def _input(given: Any, dtype: torch.dtype, device: torch.device) -> Tensor:
    if isinstance(given, Tensor):
        return given.detach().to(device)
    if not is_shape(given) or any(size < 0 for size in given):
        raise ValueError(
            "an input is a shape without the batch, such as (3, 224, 224), or an example tensor; "
            f"several are a list or a mapping of these; got {given!r}"
        )
    shape = (1, *given)
    if device.type == "meta" or not dtype.is_floating_point:
        # 0 is an index of every table.
        return torch.zeros(shape, dtype=dtype, device=device)
    # Its own generator: the global one is the user's.
    generator = torch.Generator().manual_seed(0)
    return torch.randn(shape, generator=generator).to(device, dtype)


def _check_signature(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    signature = inspect.signature(model.forward)
    try:
        signature.bind(*args, **kwargs)
    except TypeError as error:
        given = len(args) + len(kwargs)
        raise ValueError(
            f"{type(model).__name__}.forward takes {signature}, and {given} "
            f"{'input was' if given == 1 else 'inputs were'} given ({error}): give a shape for "
            "each, as summary(model, [(3, 32, 32), (10,)]), or by name, as "
            'summary(model, {"x": (3, 32, 32)})'
        ) from error
