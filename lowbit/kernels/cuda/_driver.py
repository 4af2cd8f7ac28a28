"""Compiling CUDA C++ at run time, with NVRTC, and launching it, through the driver."""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from lowbit.kernels.cuda import _cache

# The kernels multiply bits with an instruction of compute capability 8.0.
CAPABILITY = (8, 0)
_MAX_DYNAMIC_SHARED = 8  # CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES

FOLDER = Path(__file__).parent
Grid = tuple[int, int, int]
Launch = Callable[[Grid, int, int, ctypes.Structure], None]


def source(name: str) -> str:
    """The CUDA C++ of ``name``.cu, whole."""
    return (FOLDER / "device.cuh").read_text() + (FOLDER / f"{name}.cu").read_text()


def kernel(name: str, defines: tuple[tuple[str, int], ...], device: torch.device) -> Launch:
    """The kernel ``lowbit_<name>`` of ``name``.cu, compiled with these macros, on a device.

    It is called with the grid, the threads of a block, bytes of shared memory, and its argument,
    and runs on torch's current stream. Raises ``RuntimeError`` where the GPU cannot run it.
    """
    return load(source(name), f"lowbit_{name}", defines, device)


def load(
    text: str, entry: str, defines: tuple[tuple[str, int], ...], device: torch.device
) -> Launch:
    """The kernel ``entry`` of CUDA C++, as ``kernel`` gives lowbit's own."""
    index = torch.cuda.current_device() if device.index is None else device.index
    return _loaded(text, entry, defines, index)


@functools.cache
def _loaded(text: str, entry: str, defines: tuple[tuple[str, int], ...], device: int) -> Launch:
    capability = torch.cuda.get_device_capability(device)
    if capability < CAPABILITY:
        raise RuntimeError(
            f"packed layers on a GPU need compute capability {CAPABILITY[0]}.{CAPABILITY[1]} or "
            f"newer; {torch.cuda.get_device_name(device)} has {capability[0]}.{capability[1]}. "
            "Keep the model on the CPU, with .cpu()"
        )
    image = compiled(text, defines, f"sm_{capability[0]}{capability[1]}")
    driver = _driver()
    module, function = ctypes.c_void_p(), ctypes.c_void_p()
    with torch.cuda.device(device):
        torch.cuda.current_stream()  # makes the context that the module is loaded into
        _check(driver.cuModuleLoadData(ctypes.byref(module), image))
    _check(driver.cuModuleGetFunction(ctypes.byref(function), module, entry.encode()))
    largest = torch.cuda.get_device_properties(device).shared_memory_per_block_optin  # type: ignore[attr-defined]
    _check(driver.cuFuncSetAttribute(function, _MAX_DYNAMIC_SHARED, largest))

    def launch(grid: Grid, block: int, shared: int, params: ctypes.Structure) -> None:
        if torch.cuda.current_device() != device:
            with torch.cuda.device(device):
                return launch(grid, block, shared, params)
        stream = ctypes.c_void_p(torch._C._cuda_getCurrentRawStream(device))
        arguments = (ctypes.c_void_p * 1)(ctypes.addressof(params))
        _check(driver.cuLaunchKernel(function, *grid, block, 1, 1, shared, stream, arguments, None))
        return None

    return launch


def compiled(text: str, defines: tuple[tuple[str, int], ...], architecture: str) -> bytes:
    """The machine code of CUDA C++ for an architecture such as sm_90; no GPU is needed.

    It is kept on disk for the next process, as ``_cache.folder`` says.
    """
    options = [f"--gpu-architecture={architecture}", "--std=c++17"]
    options += [f"-D{macro}={value}" for macro, value in defines]
    return _compiled(text, tuple(options), _version())


@_cache.kept
def _compiled(text: str, options: tuple[str, ...], version: tuple[int, int]) -> bytes:
    """The code, by this version of NVRTC: an argument, so that code of another is not taken."""
    nvrtc = _nvrtc()
    program = ctypes.c_void_p()
    _check_nvrtc(
        nvrtc.nvrtcCreateProgram(ctypes.byref(program), text.encode(), b"lowbit.cu", 0, None, None)
    )
    array = (ctypes.c_char_p * len(options))(*(o.encode() for o in options))
    failed = nvrtc.nvrtcCompileProgram(program, len(options), array)
    if failed:
        log = _bytes(nvrtc, "ProgramLog", program).rstrip(b"\0").decode()
        raise RuntimeError(f"NVRTC {version} cannot compile a packed kernel, {options[0]}: {log}")
    image = _bytes(nvrtc, "CUBIN", program)
    _check_nvrtc(nvrtc.nvrtcDestroyProgram(ctypes.byref(program)))
    return image


def _bytes(nvrtc: Any, what: str, program: ctypes.c_void_p) -> bytes:
    size = ctypes.c_size_t()
    _check_nvrtc(getattr(nvrtc, f"nvrtcGet{what}Size")(program, ctypes.byref(size)))
    buffer = ctypes.create_string_buffer(size.value)
    _check_nvrtc(getattr(nvrtc, f"nvrtcGet{what}")(program, buffer))
    return buffer.raw


def _version() -> tuple[int, int]:
    major, minor = ctypes.c_int(), ctypes.c_int()
    _check_nvrtc(_nvrtc().nvrtcVersion(ctypes.byref(major), ctypes.byref(minor)))
    return major.value, minor.value


@functools.cache
def _driver() -> ctypes.CDLL:
    return ctypes.CDLL("libcuda.so.1")


@functools.cache
def _nvrtc() -> ctypes.CDLL:
    if torch.version.cuda is None:
        raise RuntimeError("this torch is built without CUDA; packed layers run on the CPU")
    # torch's package brings it, in a folder that importing torch makes known to the loader.
    name = f"libnvrtc.so.{torch.version.cuda.split('.')[0]}"
    try:
        return ctypes.CDLL(name)
    except OSError as error:
        raise RuntimeError(f"no {name}, which compiles kernels: {error}; install torch") from error


def _check(code: int) -> None:
    if code:
        text = ctypes.c_char_p()
        _driver().cuGetErrorString(code, ctypes.byref(text))
        reason = (text.value or b"unknown").decode()
        raise RuntimeError(f"the CUDA driver refuses a packed kernel: {reason} ({code})")


def _check_nvrtc(code: int) -> None:
    if code:
        nvrtc = _nvrtc()
        nvrtc.nvrtcGetErrorString.restype = ctypes.c_char_p
        raise RuntimeError(f"NVRTC failed: {nvrtc.nvrtcGetErrorString(code).decode()} ({code})")
