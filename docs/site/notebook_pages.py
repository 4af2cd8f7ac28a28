"""The notebooks as pages. With LOWBIT_RUN_NOTEBOOKS=1 they are run first, and show what came out.

They are committed without outputs: times and scores are of one machine and one commit.
"""

from __future__ import annotations

import base64
import os
from pathlib import Path
from typing import Any

import nbformat
from docstrings import fenced

FOLDER = Path(__file__).resolve().parents[1] / "notebooks"


def executed(path: Path) -> nbformat.NotebookNode:
    notebook = nbformat.read(path, as_version=4)
    if os.environ.get("LOWBIT_RUN_NOTEBOOKS") == "1":
        from nbclient import NotebookClient

        NotebookClient(notebook, timeout=300, kernel_name="python3").execute()
    return notebook


def shown(output: dict[str, Any], picture: str) -> tuple[str, bytes | None]:
    """One output of a cell as Markdown, and the picture that it shows by that name."""
    if output["output_type"] == "stream":
        return fenced(output["text"].rstrip()), None
    data = output.get("data", {})
    if "image/png" in data:
        return f"![]({picture})", base64.b64decode(data["image/png"])
    return fenced(data.get("text/plain", "").rstrip()), None


def page(path: Path) -> dict[str, str | bytes]:
    made: dict[str, str | bytes] = {}
    parts = []
    for i, cell in enumerate(executed(path)["cells"]):
        if cell["cell_type"] == "markdown":
            parts.append(cell["source"])
            continue
        parts.append(fenced(cell["source"], "python"))
        for j, output in enumerate(cell["outputs"]):
            picture = f"{path.stem}_{i}_{j}.png"
            text, content = shown(output, picture)
            parts.append(text)
            if content is not None:
                made[f"notebooks/{picture}"] = content
    parts.insert(1, f"[This page as a notebook]({path.name}).")
    made[f"notebooks/{path.stem}.md"] = "\n\n".join(parts) + "\n"
    return made


def pages() -> dict[str, str | bytes]:
    return {
        name: content
        for path in sorted(FOLDER.glob("*.ipynb"))
        for name, content in page(path).items()
    }
