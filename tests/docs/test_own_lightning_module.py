"""The page on one's own LightningModule runs as it is written, and its commands know its files."""

import re
import shlex
from pathlib import Path

import pytest
import torch

import lowbit
from lowbit.cli import main
from lowbit.nn import latent_layers

PAGE = Path(__file__).resolve().parents[2] / "docs" / "own_lightning_module.md"
TEXT = PAGE.read_text(encoding="utf-8")


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """The page's variables, and the folder that it ran in."""
    folder = tmp_path_factory.mktemp("own")
    names: dict[str, object] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for block in blocks("python"):
            exec(compile(block, PAGE.name, "exec"), names)
    return {**names, "folder": folder}


pytestmark = pytest.mark.filterwarnings("ignore")


def test_it_learns(ran):
    model = ran["module"].model.eval()
    with torch.no_grad():
        right = model(ran["images"]).argmax(1) == ran["labels"]
    assert right.float().mean() > 0.95


def test_quantizers_followed_the_epoch(ran):
    quantizer = dict(latent_layers(ran["module"].model))["hidden.0"].input_quantization
    expected = lowbit.quantizers.get("ede")
    expected.set_progress(4 / 5)  # the last epoch of 5, from 0
    for found, buffer in zip(quantizer.buffers(), expected.buffers(), strict=True):
        assert torch.equal(found, buffer)
    assert any(True for _ in expected.buffers())


def test_the_packed_file_has_the_networks_classes(ran):
    with torch.no_grad():
        expected = ran["module"].model.eval()(ran["images"])
        packed = lowbit.load_packed(ran["folder"] / "network.safetensors")(ran["images"])
    assert all(row.packed for row in ran["report"])
    assert torch.equal(packed.argmax(1), expected.argmax(1))
    torch.testing.assert_close(packed[:4], ran["scores"])


def test_the_commands_know_its_checkpoint(ran, monkeypatch, capsys):
    monkeypatch.chdir(ran["folder"])
    lines = [line for block in blocks("bash") for line in block.splitlines()]
    assert len(lines) == 3
    for line in lines:
        words = shlex.split(line)
        assert words[0] == "lowbit"
        assert main([*words[1:], *(["--seconds", "0"] if words[1] == "bench" else [])]) == 0
    assert capsys.readouterr().err == ""
