"""Checks of arguments: an error names the value, the rule and the way out."""

from collections.abc import Sequence


def one_of(owner: str, name: str, value: object, allowed: Sequence[str]) -> None:
    """Raise ``ValueError`` unless value is one of the allowed words."""
    if value not in allowed:
        raise ValueError(f"{owner} takes {name} one of {', '.join(allowed)}; got {name}={value!r}")


def bit_width(owner: str, bits: object, low: int, high: int) -> None:
    """Raise ``ValueError`` unless bits is a whole number in [low, high]."""
    if isinstance(bits, bool) or not isinstance(bits, int) or not low <= bits <= high:
        raise ValueError(f"{owner} takes {low} to {high} bits, a whole number; got bits={bits!r}")


def number(
    owner: str,
    name: str,
    value: float,
    low: float,
    high: float = float("inf"),
    *,
    open_: bool = False,
) -> None:
    """Raise ``ValueError`` unless low <= value <= high (low < value where ``open_``)."""
    real = isinstance(value, int | float) and not isinstance(value, bool)
    if not real or not low <= value <= high or (open_ and value == low):
        rule = f"{'>' if open_ else '>='} {low:g}" + (f" and <= {high:g}" if high < 1e300 else "")
        raise ValueError(f"{owner} needs {name} {rule}; got {name}={value!r}")
