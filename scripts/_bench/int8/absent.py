"""A contender that is not here."""

from __future__ import annotations


class NotHere(Exception):
    """What this installation lacks; the message is the reason that the table gives."""
