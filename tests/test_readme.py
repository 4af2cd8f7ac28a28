"""The Python of the README runs, in order, as a reader would paste it."""

import re
from pathlib import Path

README = Path(__file__).resolve().parents[1] / "README.md"


def blocks() -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", README.read_text(encoding="utf-8"), re.S | re.M)


def test_every_block_runs_after_those_before_it(capsys):
    assert len(blocks()) >= 3
    names: dict[str, object] = {}
    for block in blocks():
        exec(compile(block, "README.md", "exec"), names)
    assert "layers in int8" in capsys.readouterr().out
