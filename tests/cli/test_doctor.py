"""``lowbit doctor``."""

import json

import pytest
import torch

import lowbit
from lowbit import kernels
from lowbit.cli import _machine, _optional, doctor


def test_it_says_what_is_there(run):
    ended = run("doctor")
    assert ended.code == 0
    for part in (lowbit.__version__, torch.__version__, kernels.isa(), "lowbit is usable here"):
        assert part in ended.out
    found = json.loads(run("doctor", "--json").out)
    assert found["usable"]
    assert found["instruction_sets"] == list(kernels.isas())
    assert set(found["packages"]) == {entry.name for entry in _optional.PACKAGES}


def test_an_instruction_set_that_is_not_here(run, monkeypatch):
    monkeypatch.setenv("LOWBIT_ISA", "abacus")
    ended = run("doctor")
    assert ended.code == 1
    assert "to mend: LOWBIT_ISA='abacus'" in ended.out
    assert "not usable" in ended.out


def test_kernels_that_are_not_compiled_are_slow_and_can_be_mended(run, monkeypatch):
    monkeypatch.setattr(doctor._library, "load", lambda: "no compiler; `pip install again`")
    ended = run("doctor")
    assert ended.code == 0
    assert "plain torch" in ended.out
    assert "pip install again" in ended.out


def test_packed_outputs_that_are_wrong_are_found(run, monkeypatch):
    monkeypatch.setattr(torch, "allclose", lambda *a, **k: False)
    ended = run("doctor")
    assert ended.code == 1
    assert "gives other outputs" in ended.out


def test_a_package_that_is_missing_has_its_command(run, monkeypatch):
    monkeypatch.setattr(doctor, "version", lambda entry: None if entry.name == "onnx" else "1.0")
    ended = run("doctor")
    assert ended.code == 0
    assert "missing ones: pip install onnx\n" in ended.out


def test_safetensors_is_needed(run, monkeypatch):
    monkeypatch.setattr(doctor, "installed", lambda module: False)
    ended = run("doctor")
    assert ended.code == 1
    assert "pip install safetensors" in ended.out


def test_the_compiler_is_that_of_an_installation(monkeypatch, tmp_path):
    mine = tmp_path / "mine"
    mine.write_text("#!/bin/sh\n")
    mine.chmod(0o755)
    monkeypatch.setenv("CXX", str(mine))
    assert _machine.compiler() == str(mine)
    monkeypatch.setenv("CXX", str(tmp_path / "none"))
    assert _machine.compiler() is None


@pytest.mark.parametrize("entry", _optional.PACKAGES, ids=lambda entry: entry.name)
def test_a_version_is_there_where_the_package_is(entry):
    assert (_optional.version(entry) is not None) == _optional.installed(entry.module)


def test_gpus_that_are_too_old_for_packed_networks_say_so(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda i: f"card {i}")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda i: [(7, 5), (9, 0)][i])
    assert doctor.examine()["gpu"] == ["card 0, training only", "card 1"]
