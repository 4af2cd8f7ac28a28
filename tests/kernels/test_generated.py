"""What scripts have written beside the C++ is what they would write now."""

import subprocess
import sys
from pathlib import Path

CSRC = Path(__file__).parents[2] / "lowbit" / "kernels" / "csrc"


def test_the_prefix_tiles_are_those_of_their_generator():
    written = subprocess.run(
        [sys.executable, CSRC / "generate_prefix_tiles.py"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert written == (CSRC / "x86_avx512_prefix_tiles.inc").read_text()
