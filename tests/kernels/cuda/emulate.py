"""Kernels of CUDA C++ run on the processor, in fibers: on_cpu.cc says how, and what it catches."""

import ctypes
import functools
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest
from torch import Tensor

HEADER = Path(__file__).with_name("on_cpu.h")
RUNTIME = Path(__file__).with_name("on_cpu.cc")
COMPILER = (shutil.which("g++") or shutil.which("clang++")) if sys.platform == "linux" else None
FLAGS = ["-std=c++17", "-g1", "-fPIC", "-fvisibility=hidden", "-ffp-contract=off", "-Wall"]
FLAGS += ["-Wextra", "-Wno-unknown-pragmas"]  # pragmas are for the GPU's compiler
FLAGS += ["-Wno-maybe-uninitialized"]  # has false alarms in what the sanitizers add
if os.environ.get("LOWBIT_WERROR") == "1":
    FLAGS.append("-Werror")
# on_cpu.cc has the functions that the sanitizers' instrumentation calls.
CHECKED = ["-fsanitize=thread,alignment,null,bounds,shift-exponent,integer-divide-by-zero"]
CHECKED += ["-fsanitize=signed-integer-overflow", "-fno-sanitize-recover=all"]

Launch = Callable[..., None]


class Emulated:
    """Compiles sources of kernels for the processor, each once for its definitions.

    Arguments:
        before: files that a source needs ahead of it, such as ``device.cuh``.
        options: more of the compiler's, for on_cpu.cc.
    """

    def __init__(self, before: Sequence[Path] = (), options: Sequence[str] = ()) -> None:
        self._before = tuple(before)
        self._options = tuple(options)
        self._folder = tempfile.TemporaryDirectory(prefix="lowbit-emulated-")
        self._libraries: dict[object, ctypes.CDLL] = {}

    def compile(self, source: Path, name: str, defines: Mapping[str, int] | None = None) -> Launch:
        """The kernel ``name`` of ``source``, with the macros ``defines``.

        It is called as ``launch(grid, block, shared, params, seed=0, arrays=None)``: ``grid`` is
        three numbers of blocks, ``block`` the threads of one, ``shared`` bytes and ``params`` the
        structure that the kernel takes. The seed orders blocks, warps and lanes. ``arrays`` are
        the tensors that the kernel may touch, where given. A launch raises ``RuntimeError`` where
        the kernel breaks a rule that on_cpu.cc checks.

        A test is skipped where there is no C++ compiler, or no Linux.
        """
        if COMPILER is None:
            pytest.skip("needs Linux and a C++ compiler, g++ or clang++")
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
        lines = [f'#include "{file.resolve()}"' for file in files]
        lines += [f"LOWBIT_LAUNCH({name}, {type})" for name, type in _kernels_of(files[-1]).items()]
        wrapper = stem.with_suffix(".cc")
        wrapper.write_text("\n".join(lines) + "\n")
        macros = [f"-D{macro}={value}" for macro, value in defines.items()]
        kernels, library = stem.with_suffix(".o"), stem.with_suffix(".so")
        flags = [*FLAGS, *CHECKED, "-O1", "-DLOWBIT_ON_CPU", *macros, "-include", str(HEADER)]
        _run_compiler(*flags, "-c", str(wrapper), "-o", str(kernels))
        _run_compiler("-shared", str(kernels), str(self._runtime), "-o", str(library))
        return ctypes.CDLL(str(library))

    @functools.cached_property
    def _runtime(self) -> Path:
        made = Path(self._folder.name) / "on_cpu.o"
        _run_compiler(*FLAGS, "-O2", *self._options, "-c", str(RUNTIME), "-o", str(made))
        return made


def _run_compiler(*arguments: str) -> None:
    assert COMPILER is not None
    done = subprocess.run([COMPILER, *arguments], capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"a kernel does not compile on the CPU:\n{done.stderr}")


def _kernels_of(source: Path) -> dict[str, str]:
    """The kernels in a source, each with the type of its one argument."""
    kernel = (
        r'extern "C" __global__ void\s+(?:__launch_bounds__\([^)]*\)\s+)?'
        r"(\w+)\(const (?:__grid_constant__ )?(\w+) \w+\)"
    )
    return dict(re.findall(kernel, source.read_text()))


class _Memory(ctypes.Structure):
    _fields_ = (("data", ctypes.c_void_p), ("bytes", ctypes.c_ulonglong))


def _span(array: Tensor) -> int:
    """Bytes from the first element to the end of the last."""
    if array.numel() == 0:
        return 0
    steps = zip(array.shape, array.stride(), strict=True)
    return (1 + sum((size - 1) * stride for size, stride in steps)) * array.element_size()


def _launch_of(library: ctypes.CDLL, name: str) -> Launch:
    function = library[f"launch_{name}"]
    function.argtypes = [ctypes.c_void_p, *[ctypes.c_uint] * 5, ctypes.c_ulonglong]
    function.argtypes += [ctypes.POINTER(_Memory), ctypes.c_uint]
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
        arrays: Sequence[Tensor] | None = None,
    ) -> None:
        if ctypes.sizeof(params) != expected:
            raise ValueError(
                f"{name} takes a structure of {expected} bytes, "
                f"and {type(params).__name__} has {ctypes.sizeof(params)}"
            )
        memory = None
        if arrays is not None:
            pairs = [_Memory(array.data_ptr(), _span(array)) for array in arrays]
            memory = (_Memory * len(pairs))(*pairs)
        count = 0 if arrays is None else len(arrays)
        if function(ctypes.addressof(params), *grid, block, shared, seed, memory, count):
            raise RuntimeError(f"{name}: {library.launch_error().decode()}")

    return launch
