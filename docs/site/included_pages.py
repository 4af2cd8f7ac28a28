"""Pages that are files of the repository: CONTRIBUTING and the changelog."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SOURCES = {"contributing.md": "CONTRIBUTING.md", "changelog.md": "CHANGELOG.md"}


def pages() -> dict[str, str]:
    return {path: (ROOT / name).read_text(encoding="utf-8") for path, name in SOURCES.items()}
