"""The house: who imports whom, file names, and what must not be written anywhere."""

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lowbit.quantizers import names
from lowbit.quantizers._registry import quantizers

ROOT = Path(__file__).resolve().parents[1]

# A part of lowbit imports itself and parts of lower levels; experiments stand above all.
LEVELS = {
    "_beside": 0,
    "_registry": 0,
    "_version": 0,
    "functional": 1,
    "kernels": 2,
    "quantizers": 3,
    "observers": 3,
    "qtensor": 3,
    "qconfig": 4,
    "nn": 4,
    "models": 5,
    "optim": 5,
    "convert": 6,
    "export": 6,
    "files": 7,
    "summary": 7,
    "__init__": 8,
    "cli": 9,
    "__main__": 10,
}
DEPENDENCIES = {"torch", "safetensors", "triton"}  # the last where torch brings it


def imports(path: Path, package: tuple[str, ...]) -> Iterator[str]:
    """Full names of what a file imports; ``package`` is the one it lies in."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = list(package[: len(package) - node.level + 1]) if node.level else []
            base += [node.module] if node.module else []
            yield from (".".join([*base, alias.name]) for alias in node.names)


def part(name: str) -> str:
    """``lowbit.nn.linear.QLinear`` -> ``nn``; names that lowbit itself re-exports -> its init."""
    second = name.split(".")[1] if "." in name else "__init__"
    return second if second in LEVELS else "__init__"


def files() -> list[Path]:
    return sorted((ROOT / "lowbit").rglob("*.py"))


@pytest.mark.parametrize("path", files(), ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_down(path):
    inside = path.relative_to(ROOT / "lowbit").with_suffix("").parts
    assert inside[0] in LEVELS, f"{inside[0]} has no level: draw it into DESIGN and LEVELS"
    for name in imports(path, ("lowbit", *inside[:-1])):
        top = name.split(".")[0]
        if top == "lowbit":
            target = part(name)
            down = LEVELS[target] < LEVELS[inside[0]]
            assert down or target == inside[0], f"{inside[0]} imports {name}, which is not below it"
        else:
            known = top in sys.stdlib_module_names or top in DEPENDENCIES
            assert known, (
                f"lowbit imports {name}; it may import {DEPENDENCIES} and the standard library"
            )


def test_the_reader_of_imports_reads_every_form(tmp_path):
    file = tmp_path / "x.py"
    file.write_text(
        "import lowbit.nn\n"
        "from lowbit import optim\n"
        "from . import linear\n"
        "from ..quantizers import sign\n"
        "def f():\n    from lowbit.models.mlp import MLP\n"
    )
    assert list(imports(file, ("lowbit", "nn"))) == [
        "lowbit.nn",
        "lowbit.optim",
        "lowbit.nn.linear",
        "lowbit.quantizers.sign",
        "lowbit.models.mlp.MLP",
    ]
    assert [part(n) for n in ("lowbit", "lowbit.Quantizer", "lowbit.nn.linear")] == [
        "__init__",
        "__init__",
        "nn",
    ]


def test_a_quantizers_name_is_that_of_its_file():
    folder = ROOT / "lowbit" / "quantizers"
    modules = {path.stem for path in folder.glob("*.py") if not path.stem.startswith("_")}
    by_name = {name: quantizers.resolve(name).__module__ for name in names()}
    ours = {name: module for name, module in by_name.items() if module.startswith("lowbit.")}
    assert ours == {name: f"lowbit.quantizers.{name}" for name in modules}


FOLDERS = ("lowbit", "experiments", "configs", "scripts", "tests", ".ci", "docs")
SUFFIXES = {
    ".py",
    ".yaml",
    ".yml",
    ".toml",
    ".md",
    ".json",
    ".cfg",
    ".txt",
    ".cc",
    ".h",
    ".inc",
    "",
}
# A folder of somebody's machine: not preceded by what makes it part of a longer path or an URL.
MACHINE_PATH = re.compile(r"(?<![\w.~}$/])/(?:home|Users|root|work|workspace|scratch|mnt|tmp)/\w")


def text_files() -> Iterator[Path]:
    yield from (path for path in ROOT.iterdir() if path.is_file() and path.suffix in SUFFIXES)
    for folder in FOLDERS:
        for path in (ROOT / folder).rglob("*"):
            if path.is_file() and path.suffix in SUFFIXES:
                yield path


def test_no_file_names_a_folder_of_one_machine():
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in text_files()
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1)
        if MACHINE_PATH.search(line)
    ]
    assert found == []


def test_the_pattern_of_machine_paths_finds_them():
    for folder in ("home", "Users", "tmp"):
        assert MACHINE_PATH.search(f'root = "/{folder}/someone/data"')
    assert not MACHINE_PATH.search("https://example.org/home/page and configs/tmp/x")
