"""The compiled library of the kernels: finding and loading it.

CMakeLists.txt makes it, beside this file, when lowbit is installed. It defines the ops'
schemas and CPU kernels when it is loaded, and needs no torch but 2.11 or newer.
"""

import functools
import sys
from pathlib import Path

import torch

FILE = Path(__file__).with_name("_kernels.dylib" if sys.platform == "darwin" else "_kernels.so")


@functools.cache
def load() -> str | None:
    """Load the library, once: None, or the reason why there is none to load.

    Raises an OSError where there is one that cannot be loaded, such as one of another machine.
    """
    if not FILE.exists():
        clone = FILE.parents[2]
        if (clone / "CMakeLists.txt").exists():
            again = f"pip install --no-deps -e {clone}"
        else:
            again = "pip install --force-reinstall --no-deps --no-cache-dir lowbit"
        return (
            f"there is no {FILE.name}: lowbit was installed without a C++ compiler, or compiling "
            f"failed; install one (g++ or clang++), then `{again}` (with -v it says what it lacks)"
        )
    try:
        torch.ops.load_library(FILE)
    except OSError as error:
        raise OSError(
            f"{FILE} cannot be loaded: {error.__cause__ or error}. It needs torch 2.11 or newer "
            f"and the machine it was compiled for; torch here is {torch.__version__}. Reinstall "
            "lowbit, or delete the file to run plain torch"
        ) from error
    return None
