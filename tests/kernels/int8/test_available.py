"""When oneDNN's int8 operators are not trusted, the specification runs and says so once."""

import os
import platform
import subprocess
import sys
import warnings

import pytest
import torch

from lowbit.kernels import int8
from lowbit.kernels.int8 import _available, _ops
from tests.kernels.int8._layers import KERNELS, drawn


@pytest.fixture
def fresh():
    """Forget what is known of this machine, before and after."""
    _available.why_not.cache_clear()
    _ops._warn.cache_clear()
    yield
    _available.why_not.cache_clear()
    _ops._warn.cache_clear()


def check_fallback(reason: str) -> None:
    assert not int8.available()
    assert reason in int8.why_not()
    layers = [drawn(kind, seed) for kind in KERNELS for seed in range(4)]
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        same = [torch.equal(layer.found(), layer.expected()) for layer in layers]
    assert all(same)
    texts = [str(warning.message) for warning in warned]
    assert len(texts) == 1
    assert texts[0].startswith("int8 layers run in plain torch, slower than float: ")
    assert reason in texts[0]


def test_a_processor_without_vnni(fresh, monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": True, "avx512_f": True})
    check_fallback("without VNNI instructions")


def test_a_torch_without_the_operators(fresh, monkeypatch):
    vnni = {"avx512_vnni": True}
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: vnni)
    monkeypatch.setattr(_available, "_OPERATORS", ("qlinear_prepack", "an_operator_of_2042"))
    check_fallback("has no torch.ops.onednn.an_operator_of_2042")


def test_operators_with_other_arguments(fresh, monkeypatch):
    def fail(*_):
        raise TypeError("unexpected argument")

    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_vnni": True})
    monkeypatch.setattr(_available._onednn, "linear", fail)
    check_fallback("unexpected argument")


def test_wrong_integers_are_noticed(fresh, monkeypatch):
    real = _available._onednn.conv

    def slightly_wrong(*arguments):
        y = real(*arguments)
        y[(0,) * y.ndim] += 1
        return y

    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_vnni": True})
    if not int8.available():
        pytest.skip(f"no kernel to break: {int8.why_not()}")
    _available.why_not.cache_clear()
    monkeypatch.setattr(_available._onednn, "conv", slightly_wrong)
    check_fallback("convolution of 2 axes gives wrong integers")


SCRIPT = """
import torch, warnings
from lowbit.kernels import int8
from tests.kernels.int8._layers import KERNELS, drawn
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    for kind in KERNELS:
        for seed in range(8):
            layer = drawn(kind, seed)
            assert torch.equal(layer.found(), layer.expected()), (kind, seed)
print(int8.why_not())
"""


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="x86 only")
@pytest.mark.parametrize("isa", ["AVX2", "AVX512_CORE"])
def test_processors_that_overflow_are_found_out(isa):
    """As on processors without VNNI, which torch's own count of capabilities does not see."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        env={**os.environ, "ONEDNN_MAX_CPU_ISA": isa},
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )
    assert "wrong" in done.stdout
