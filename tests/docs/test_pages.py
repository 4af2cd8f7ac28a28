"""What the pages of the documentation show runs, and what they point at is there."""

from __future__ import annotations

import importlib.util
import re
import shlex
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

import experiments._app  # noqa: F401  # its resolvers are read by the configs
from experiments._app import CONFIGS

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted(
    page for page in (ROOT / "docs").rglob("*.md") if "site" not in page.relative_to(ROOT).parts
)
# Pages whose code has a test of its own.
ELSEWHERE = {"migrating_from_torch_ao", "own_lightning_module"}
# ```python MODULE is code that needs a further module.
PYTHON = re.compile(r"^```python(?: (?P<module>\w+))?\n(?P<code>.*?)^```", re.MULTILINE | re.DOTALL)
SHELL = re.compile(r"^```bash\n(.*?)^```", re.MULTILINE | re.DOTALL)

named = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)


@named
def test_its_python_runs_in_order(page, tmp_path, monkeypatch):
    text = page.read_text(encoding="utf-8")
    if page.stem in ELSEWHERE or not PYTHON.search(text):
        pytest.skip("no code that is tested here")
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for block in PYTHON.finditer(text):
        if block["module"] and importlib.util.find_spec(block["module"]) is None:
            continue
        source = "\n" * text[: block.start("code")].count("\n") + block["code"]
        exec(compile(source, page.name, "exec"), names)


def commands(text: str) -> list[list[str]]:
    """The words of each command of the shell blocks, comments and lines to go on left out."""
    blocks = "\n".join(block.replace("\\\n", " ") for block in SHELL.findall(text))
    return [shlex.split(line, comments=True) for line in blocks.splitlines() if line.strip()]


def config_of(words: list[str]) -> str | None:
    """The config that a command of ours reads; None for other commands."""
    for name in ("train", "eval"):
        if words[:3] == ["python", "-m", f"experiments.{name}"]:
            return name
    return None


@named
def test_its_commands_compose(page):
    """Every override in a command of ours is one that the configuration has."""
    for words in commands(page.read_text(encoding="utf-8")):
        config = config_of(words)
        if config is None or "-m" in words[3:] or "--multirun" in words[3:]:
            continue
        overrides = [
            word for word in words[3:] if not word.startswith(("-", "hydra", "checkpoint="))
        ]
        with initialize_config_dir(str(CONFIGS), version_base="1.3"):
            compose(config, overrides)  # an unknown key or choice is an error


@named
def test_files_that_it_names_are_there(page):
    text = PYTHON.sub("", page.read_text(encoding="utf-8"))
    paths = re.findall(
        r"\b(?:python )?((?:scripts|configs|experiments|lowbit|tests)/[\w/.]+)", text
    )
    missing = [path for path in paths if not (ROOT / path.rstrip("./")).exists()]
    assert missing == []
