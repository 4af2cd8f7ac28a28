"""The compiled library: made where it must be, up to date, and told apart from absent or broken."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from lowbit import kernels
from lowbit.kernels import _library

ROOT = Path(__file__).resolve().parents[2]
CSRC = ROOT / "lowbit" / "kernels" / "csrc"
HEADERS = ROOT / "third_party" / "torch_stable"

compiled = pytest.mark.skipif(
    not _library.FILE.exists(), reason="lowbit is installed without compiled kernels"
)


def load_from(monkeypatch, file: Path) -> str | None:
    """What a process returns or raises whose library would be ``file``."""
    monkeypatch.setattr(_library, "FILE", file)
    return _library.load.__wrapped__()


def test_the_library_is_loaded_where_it_is_required():
    if os.environ.get("LOWBIT_REQUIRE_KERNELS", "0").upper() in {"", "0", "OFF", "FALSE", "NO"}:
        pytest.skip("LOWBIT_REQUIRE_KERNELS is not set")
    assert kernels.available(), _library.load()


@compiled
@pytest.mark.skipif(_library.FILE.parent != CSRC.parent, reason="lowbit is not installed editable")
def test_the_library_is_newer_than_its_sources():
    made = _library.FILE.stat().st_mtime
    sources = [file for file in CSRC.iterdir() if file.suffix in {".cc", ".h", ".inc", ".txt"}]
    newer = [file.name for file in sources if file.stat().st_mtime > made]
    assert not newer, "compile again: cmake -S . -B build && cmake --build build"


@compiled
@pytest.mark.skipif(shutil.which("nm") is None, reason="binutils' nm is not installed")
def test_the_library_has_no_symbol_of_python():
    # The wheel is py3-none: one for every Python.
    nm = subprocess.run(["nm", "-P", "-u", _library.FILE], capture_output=True, text=True)
    names = [line.split()[0] for line in nm.stdout.splitlines()]
    assert not [name for name in names if re.match("_*Py[A-Z_]", name)]


@compiled
def test_the_library_names_no_folder_of_this_machine():
    assert str(ROOT).encode() not in _library.FILE.read_bytes()


def test_an_absent_library_has_a_reason_with_the_way_out(monkeypatch, tmp_path):
    package = tmp_path / "lowbit" / "kernels"
    reason = load_from(monkeypatch, package / "_kernels.so")
    assert "_kernels.so" in reason
    assert "`pip install --force-reinstall --no-deps --no-cache-dir lowbit`" in reason
    (tmp_path / "CMakeLists.txt").touch()
    assert f"`pip install --no-deps -e {tmp_path}`" in load_from(
        monkeypatch, package / "_kernels.so"
    )


def test_a_broken_library_is_loud(monkeypatch, tmp_path):
    file = tmp_path / "_kernels.so"
    file.write_bytes(b"not a library")
    with pytest.raises(OSError, match=r"_kernels\.so cannot be loaded: .*Reinstall lowbit"):
        load_from(monkeypatch, file)


def test_every_file_of_an_instruction_set_has_its_flags():
    lines = (CSRC / "flags.txt").read_text().splitlines()
    files = {path.name for arch in ("x86", "arm64") for path in CSRC.glob(f"{arch}_*.cc")}
    assert {line.split()[0] for line in lines if not line.startswith("#")} == files


def test_the_headers_of_torch_are_whole():
    files = [*HEADERS.rglob("*.h"), *CSRC.glob("*.cc")]
    assert len(files) > 50
    for file in files:
        for name in re.findall(r"#\s*include\s*<(torch/[^>]+)>", file.read_text()):
            assert (HEADERS / name).exists(), f"{file.name} includes {name}: take_torch_headers.py"
