"""The instruction sets: those that should run here do, and each is what its name says."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from lowbit import kernels
from lowbit.functional import packed_conv as spec
from lowbit.kernels import Geometry
from tests.kernels import conftest
from tests.kernels._layers import assert_same, drawn, layer_of, sums

# What a processor calls the instructions that each name takes, in Linux' words.
FLAGS = {
    "avx512_vpopcntdq": {"avx512f", "avx512bw", "avx512vl", "avx512_vpopcntdq"},
    "avx512bw": {"avx512f", "avx512bw", "avx512vl"},
    "avx2": {"avx2"},
    "neon_dot": {"asimd", "asimddp"},
    "neon": {"asimd"},
    "scalar": set(),
}
NAMES = (*FLAGS, "reference")


def flags_here() -> set[str]:
    info = Path("/proc/cpuinfo")
    if not info.exists():
        pytest.skip(f"{platform.system()} has no /proc/cpuinfo to compare with")
    lines = info.read_text().splitlines()
    return {
        word
        for line in lines
        if line.split(":")[0].strip() in {"flags", "Features"}
        for word in line.split(":")[1].split()
    }


@pytest.mark.parametrize("name", FLAGS)
def test_what_the_processor_has_is_used(name):
    if not kernels.available():
        pytest.skip("lowbit is installed without compiled kernels")
    missing = FLAGS[name] - flags_here()
    if missing:
        assert name not in kernels.isas()
        pytest.skip(f"this processor has no {', '.join(sorted(missing))}")
    assert name in kernels.isas()


def test_these_tests_know_every_instruction_set():
    assert set(kernels.isas()) <= set(NAMES)
    assert list(kernels.isas()) == [name for name in NAMES if name in kernels.isas()]


def test_these_tests_exercise_every_instruction_set(isa):
    assert set(conftest.PARAMS) == set(kernels.isas())
    assert_same(drawn(1).run(isa), sums(1))
    # Its weight is its own: made so by name, and by no other.
    panel = drawn(1).panel(isa)
    for other in kernels.isas():
        assert torch.equal(drawn(1).panel(other), panel) == (other == isa)


def test_the_environment_chooses(isa, monkeypatch):
    layer = drawn(2)
    named = layer.panel(isa)
    monkeypatch.setenv("LOWBIT_ISA", isa)
    assert kernels.isa() == isa
    assert torch.equal(layer.panel(), named)
    monkeypatch.delenv("LOWBIT_ISA")
    assert kernels.isa() == kernels.isas()[0]
    assert torch.equal(layer.panel(), layer.panel(kernels.isas()[0]))
    monkeypatch.setenv("LOWBIT_ISA", "")
    assert kernels.isa() == kernels.isas()[0]


def test_a_weight_keeps_its_instruction_set_whatever_the_environment_says(monkeypatch):
    layer = drawn(2)
    for made in kernels.isas():
        panel = layer.panel(made)
        for now in kernels.isas():
            monkeypatch.setenv("LOWBIT_ISA", now)
            assert_same(layer.run(made, panel=panel), sums(2))


@pytest.mark.parametrize("name", ["mmx", "AVX2", "avx2 ", "neon" * 300, "é"])
def test_an_unknown_name_is_refused_with_those_there_are(monkeypatch, name):
    known = kernels.isas()[-1]
    with pytest.raises((ValueError, RuntimeError), match=f"no instruction set.*{name}.*{known}"):
        drawn(2).panel(name)
    monkeypatch.setenv("LOWBIT_ISA", name)
    with pytest.raises(ValueError, match=f"LOWBIT_ISA='{name}'.*{known}"):
        kernels.isa()
    with pytest.raises((ValueError, RuntimeError), match=f"{name}.*{known}"):
        drawn(2).panel()


def test_a_name_that_another_machine_knows_is_refused_too():
    foreign = [name for name in NAMES if name not in kernels.isas()]
    for name in foreign:
        with pytest.raises((ValueError, RuntimeError), match=f"{name}.*{kernels.isas()[-1]}"):
            drawn(2).panel(name)


PROGRAM = """
import torch
from lowbit import kernels
g = kernels.Geometry.of(100, 7)
x = torch.ones(2, 100)
v = kernels.bconv(x, kernels.prepare(torch.zeros(1, 7, 1, 2).long(), g), None, None, None, g)
print(kernels.isa(), v.unique().tolist())
"""


def test_a_process_started_with_it_uses_it(isa):
    environment = {**os.environ, "LOWBIT_ISA": isa}
    command = [sys.executable, "-W", "ignore", "-c", PROGRAM]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert ran.stdout.split() == [isa, "[100]"]


def test_all_give_the_same_floats_and_bits():
    g = Geometry.of(200, 130, kernel=(3, 3), before=(1, 1), after=(1, 1), pad=0)
    layer = layer_of(g, (6, 11))
    params, residual = torch.randn(3, 130), torch.randn(2, 130, 6, 11)
    expected = spec.packed_conv_both(
        layer.x, layer.words, params, layer.thresholds, residual, g, [1, 3]
    )
    for name in kernels.isas():
        y, bits = kernels.bconv_both(
            layer.x, layer.panel(name), params, layer.thresholds, residual, g, [1, 3]
        )
        assert_same(y, expected[0])
        assert_same(bits, expected[1])
