"""Kernels of CUDA C++ run on the processor, in fibers: on_cpu.h says how, and what it catches."""

import ctypes
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest

HEADER = Path(__file__).with_name("on_cpu.h")
COMPILER = shutil.which("g++") or shutil.which("clang++")
FLAGS = ["-std=c++17", "-O1", "-g1", "-fPIC", "-shared", "-fvisibility=hidden", "-ffp-contract=off"]
# What the kernels' pragmas ask for is for the GPU's compiler.
WARNINGS = ["-Wall", "-Wextra", "-Werror", "-Wno-unknown-pragmas", "-Wno-unused-function"]

Launch = Callable[..., None]


class Emulated:
    """Compiles sources of kernels for the processor, each once for its definitions.

    Arguments:
        before: files that a source needs ahead of it, such as ``device.cuh``.
    """

    def __init__(self, before: Sequence[Path] = ()) -> None:
        self._before = tuple(before)
        self._folder = tempfile.TemporaryDirectory(prefix="lowbit-emulated-")
        self._libraries: dict[object, ctypes.CDLL] = {}

    def compile(self, source: Path, name: str, defines: Mapping[str, int] | None = None) -> Launch:
        """The kernel ``name`` of ``source`` as ``launch(grid, block, shared, params, seed=0)``.

        ``grid`` is three numbers of blocks, ``block`` the threads of one, ``shared`` bytes and
        ``params`` the structure that the kernel takes; the seed orders blocks, warps and lanes.
        A test is skipped where there is no C++ compiler. A launch raises ``RuntimeError`` where
        the kernel breaks a rule of the GPU that on_cpu.h checks.
        """
        if COMPILER is None:
            pytest.skip("needs a C++ compiler, g++ or clang++")
        if name not in _kernels_of(source):
            raise ValueError(
                f"{source.name} has no kernel {name!r}: "
                f'extern "C" __global__ void {name}(const P p); '
                f"known: {', '.join(_kernels_of(source))}"
            )
        defines = dict(defines or {})
        files = (*self._before, source)
        times = tuple((file.resolve(), file.stat().st_mtime_ns) for file in files)
        key = (times, tuple(sorted(defines.items())))
        if key not in self._libraries:
            self._libraries[key] = self._compile(files, defines)
        return _launch_of(self._libraries[key], name)

    def _compile(self, files: Sequence[Path], defines: Mapping[str, int]) -> ctypes.CDLL:
        stem = Path(self._folder.name) / f"{files[-1].stem}-{len(self._libraries)}"
        wrapper, library = stem.with_suffix(".cc"), stem.with_suffix(".so")
        lines = [f'#include "{file.resolve()}"' for file in files]
        lines += [f"LOWBIT_LAUNCH({name}, {type})" for name, type in _kernels_of(files[-1]).items()]
        wrapper.write_text("\n".join(lines) + "\n")
        macros = [f"-D{macro}={value}" for macro, value in defines.items()]
        command = [COMPILER, *FLAGS, *WARNINGS, "-DLOWBIT_ON_CPU", "-include", HEADER, *macros]
        done = subprocess.run([*command, wrapper, "-o", library], capture_output=True, text=True)
        if done.returncode != 0:
            raise RuntimeError(f"{files[-1].name} does not compile on the CPU:\n{done.stderr}")
        return ctypes.CDLL(str(library))


def _kernels_of(source: Path) -> dict[str, str]:
    """The kernels in a source, each with the type of its one argument."""
    kernel = (
        r'extern "C" __global__ void\s+(?:__launch_bounds__\([^)]*\)\s+)?'
        r"(\w+)\(const (?:__grid_constant__ )?(\w+) \w+\)"
    )
    return dict(re.findall(kernel, source.read_text()))


def _launch_of(library: ctypes.CDLL, name: str) -> Launch:
    function = library[f"launch_{name}"]
    function.argtypes = [ctypes.c_void_p, *[ctypes.c_uint] * 5, ctypes.c_ulonglong]
    size_of_params = library[f"params_bytes_{name}"]
    size_of_params.restype = ctypes.c_ulonglong
    library.launch_error.restype = ctypes.c_char_p
    expected = size_of_params()

    def launch(
        grid: tuple[int, int, int],
        block: int,
        shared: int,
        params: ctypes.Structure,
        seed: int = 0,
    ) -> None:
        if ctypes.sizeof(params) != expected:
            raise ValueError(
                f"{name} takes a structure of {expected} bytes, "
                f"and {type(params).__name__} has {ctypes.sizeof(params)}"
            )
        if function(ctypes.addressof(params), *grid, block, shared, seed):
            raise RuntimeError(f"{name}: {library.launch_error().decode()}")

    return launch
