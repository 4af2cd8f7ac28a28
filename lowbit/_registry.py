"""Names for classes: ``Registry`` maps a name to a class and makes instances from a spec."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Generic, TypeVar

T = TypeVar("T")


def _key(name: str) -> str:
    """What two spellings of one name share: ``ApproxSign``, ``approx-sign``, ``approxsign``."""
    return name.lower().replace("_", "").replace("-", "")


class UnknownNameError(ValueError):
    """A name that no class is registered under."""


class Registry(Generic[T]):
    """Classes by name, with aliases; spelling ignores case, underscores and hyphens.

    ``kind`` is the word for one entry, used in messages: ``"quantizer"``.
    """

    def __init__(self, kind: str, base: type[T]) -> None:
        self.kind = kind
        self.base = base
        self._classes: dict[str, type[T]] = {}
        self._aliases: dict[str, str] = {}  # spelling key -> name

    def register(self, name: str, *aliases: str) -> Callable[[type[T]], type[T]]:
        """Class decorator: enter a class under ``name`` and set its ``name`` attribute.

        A class of the same module and qualified name replaces its earlier self, so that a
        cell of a notebook can be run again; any other second use of a name raises
        ``ValueError``.
        """

        def enter(cls: type[T]) -> type[T]:
            for spelling in (name, *aliases):
                taken = self._aliases.get(_key(spelling))
                if taken is None:
                    continue
                old = self._classes[taken]
                if (old.__module__, old.__qualname__) != (cls.__module__, cls.__qualname__):
                    raise ValueError(
                        f"the {self.kind} name {spelling!r} is taken by {old.__module__}."
                        f"{old.__qualname__} (registered as {taken!r}); choose another name"
                    )
            self._classes[name] = cls
            for spelling in (name, *aliases):
                self._aliases[_key(spelling)] = name
            cls.name = name  # type: ignore[attr-defined]
            return cls

        return enter

    def names(self) -> tuple[str, ...]:
        """All registered names, sorted, without aliases."""
        return tuple(sorted(self._classes))

    def resolve(self, name: str) -> type[T]:
        """The class of a name or alias; ``UnknownNameError`` names the nearest known one."""
        found = self._aliases.get(_key(name))
        if found is None:
            near = difflib.get_close_matches(_key(name), self._aliases, n=1, cutoff=0.5)
            hint = f"; did you mean {self._aliases[near[0]]!r}?" if near else ";"
            raise UnknownNameError(
                f"no {self.kind} named {name!r}{hint} known: {', '.join(self.names())}"
            )
        return self._classes[found]

    def make(self, spec: str | Mapping[str, Any] | type[T]) -> T:
        """An instance from ``"name"``, ``{"name": "...", argument: value}`` or a class."""
        if isinstance(spec, str):
            return self.resolve(spec)()
        if isinstance(spec, type) and issubclass(spec, self.base):
            return spec()
        if isinstance(spec, Mapping):
            arguments = {str(key): value for key, value in spec.items()}
            name = arguments.pop("name", None)
            if not isinstance(name, str):
                raise ValueError(
                    f"a {self.kind} spec needs a name, as in "
                    f"{{'name': {self.names()[0]!r}}}; got {dict(spec)!r}"
                )
            cls = self.resolve(name)
            try:
                return cls(**arguments)
            except TypeError as error:
                raise ValueError(
                    f"{self.kind} {name!r} does not take {arguments!r}: {error}; "
                    f"its arguments: {_arguments(cls)}"
                ) from error
        raise ValueError(
            f"a {self.kind} is named by a string, a mapping with 'name', an instance or None; "
            f"got {type(spec).__name__}: {spec!r}"
        )

    def __iter__(self) -> Iterator[str]:
        return iter(self.names())

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and _key(name) in self._aliases


def _arguments(cls: type) -> str:
    import inspect

    parameters = list(inspect.signature(cls).parameters.values())
    return ", ".join(str(p) for p in parameters) or "none"
