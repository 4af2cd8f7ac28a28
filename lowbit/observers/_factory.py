"""A class with some of its arguments: what a QConfig holds, to be called once a layer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class Factory:
    """``make(*args, **kwargs)`` with some of its keyword arguments settled.

    ``with_args`` settles more of them or others. ``with_callable_args`` settles functions that
    are called for their argument each time one is made. Two factories of equal parts are equal.

    >>> from lowbit.observers import MinMaxObserver
    >>> signed = MinMaxObserver.with_args(dtype="qint8")
    >>> signed().quant_min, signed(quant_min=-7, quant_max=7).quant_min
    (-128, -7)
    >>> signed == MinMaxObserver.with_args(dtype="qint8")
    True
    """

    def __init__(
        self,
        make: Callable[..., Any],
        kwargs: dict[str, Any],
        callables: dict[str, Callable[[], Any]] | None = None,
    ) -> None:
        self.make = make
        self.kwargs = kwargs
        self.callables = callables or {}

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        made = {key: call() for key, call in self.callables.items() if key not in kwargs}
        return self.make(*args, **{**self.kwargs, **made, **kwargs})

    def with_args(self, **kwargs: Any) -> Factory:
        return Factory(self.make, {**self.kwargs, **kwargs}, self.callables)

    def with_callable_args(self, **callables: Callable[[], Any]) -> Factory:
        return Factory(self.make, self.kwargs, {**self.callables, **callables})

    def _parts(self) -> tuple[Any, ...]:
        return self.make, self.kwargs, self.callables

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Factory) and self._parts() == other._parts()

    def __hash__(self) -> int:
        # Arguments may be lists or dicts; their names tell enough apart.
        return hash((self.make, *sorted((*self.kwargs, *self.callables))))

    def __repr__(self) -> str:
        given = [f"{key}={value!r}" for key, value in self.kwargs.items()]
        given += [f"{key}={value!r}()" for key, value in self.callables.items()]
        name = getattr(self.make, "__name__", repr(self.make))
        return f"{name}.with_args({', '.join(given)})"


class WithArgs:
    """Mixin: ``Class.with_args(...)`` makes a ``Factory``."""

    @classmethod
    def with_args(cls, **kwargs: Any) -> Factory:
        return Factory(cls, kwargs)

    @classmethod
    def with_callable_args(cls, **callables: Callable[[], Any]) -> Factory:
        return Factory(cls, {}, callables)
