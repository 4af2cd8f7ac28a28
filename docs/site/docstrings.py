"""Docstrings as Markdown: formulas, tables and examples of prose docstrings become code blocks."""

from __future__ import annotations

import re
from typing import Any

import griffe

# "value  +1 if x >= 0 else -1": a word or two, then a column of its own.
COLUMNS = re.compile(r"^(``)?[\w.,*{}/ ]*?[\w*}](``)?  +\S")
CODE = re.compile(r"(`+)(.+?)\1", re.DOTALL)


def paragraphs(docstring: str) -> list[str]:
    """The parts between blank lines; the lines of one example stay together."""
    parts: list[str] = []
    for part in re.split(r"\n\s*\n", docstring.strip("\n")):
        if parts and parts[-1].startswith(">>>") and part.startswith(">>>"):
            parts[-1] += "\n" + part
        else:
            parts.append(part)
    return parts


def is_columns(paragraph: str) -> bool:
    """Whether it is laid out by spaces: formulas, and lists of names with what they mean."""
    return bool(COLUMNS.match(paragraph))


def columns(paragraph: str) -> str:
    """Its lines as a code block; a name that loses its quotes keeps its column's width."""
    return fenced(re.sub(r"^``(.+?)``", r"\1    ", paragraph, flags=re.MULTILINE).replace("``", ""))


def fenced(text: str, language: str = "text") -> str:
    return f"```{language}\n{text}\n```"


def prose(text: str) -> str:
    """A paragraph with its angle brackets and asterisks as they are, outside of code."""
    pieces, end = [], 0
    for code in CODE.finditer(text):
        pieces += [_escaped(text[end : code.start()]), f"`{code[2]}`"]
        end = code.end()
    return "".join([*pieces, _escaped(text[end:])])


def _escaped(text: str) -> str:
    return re.sub(r"([<*_\[\]])", r"\\\1", text)


def markdown(docstring: str) -> str:
    """The whole docstring."""
    out = []
    for paragraph in paragraphs(docstring):
        if paragraph.startswith(">>>"):
            out.append(fenced(paragraph, "pycon"))
        elif paragraph.startswith("    "):
            out.append(fenced(re.sub(r"^    ", "", paragraph, flags=re.MULTILINE)))
        elif is_columns(paragraph):
            out.append(columns(paragraph))
        else:
            out.append(prose(paragraph))
    return "\n\n".join(out)


class Docstrings(griffe.Extension):
    """Gives mkdocstrings Markdown in place of each docstring."""

    def on_instance(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        if obj.docstring is not None and not obj.is_alias:
            obj.docstring.value = markdown(obj.docstring.value)
