"""Run by .ci/run-wheel: the sdist that is named has what it is built from, and nothing of CI."""

import sys
import tarfile

with tarfile.open(sys.argv[1]) as archive:
    names = {name.partition("/")[2] for name in archive.getnames()}
for name in (
    "CMakeLists.txt",
    "LICENSE",
    "README.md",
    "lowbit/_version.py",
    "lowbit/kernels/csrc/flags.txt",
    "lowbit/py.typed",
    "pyproject.toml",
    "tests/conftest.py",
    "third_party/torch_stable/LICENSE",
):
    assert name in names, f"{name} is not in the sdist"
made = (".ci", ".git/", "runs/", "data/", "build/", "dist/", "lowbit/kernels/_kernels.")
found = sorted(name for name in names if name.startswith(made) or "__pycache__" in name)
assert not found, f"the sdist also has {found[:5]}"
