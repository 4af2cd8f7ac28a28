"""What a user of the command line can put right."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator


class UserError(Exception):
    """Printed as one message, without a traceback; the command ends with code 2."""


@contextlib.contextmanager
def user_errors(*kinds: type[Exception], prefix: str = "") -> Iterator[None]:
    """Turn errors of these kinds into a ``UserError``."""
    try:
        yield
    except kinds as error:
        said = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{prefix}{said}") from error
