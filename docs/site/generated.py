"""The pages that are made as the site is built: from classes, configs, results and notebooks.

A hook of MkDocs. Each module beside it makes the pages of one part: path below docs -> content.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parent))

import command_pages
import experiment_pages
import included_pages
import notebook_pages
import quantizer_pages
import reference_pages

PARTS = (
    quantizer_pages,
    reference_pages,
    experiment_pages,
    command_pages,
    included_pages,
    notebook_pages,
)
# Sections of the navigation whose pages are listed here: the rest is in mkdocs.yml.
SECTIONS = {"quantizers/": quantizer_pages.listed, "reference/": reference_pages.listed}


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    for section in config.nav:
        for title, below in section.items():
            if isinstance(below, str) and below in SECTIONS:
                section[title] = SECTIONS[below]()
    return config


def on_page_markdown(markdown: str, **kwargs: Any) -> str:
    """Words behind a fence's language, which the tests read, become its title."""
    return re.sub(r"^```python ([\w.-]+)$", r'```python title="\1"', markdown, flags=re.MULTILINE)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    for part in PARTS:
        for path, content in part.pages().items():
            files.append(File.generated(config, path, content=content))
    return files
