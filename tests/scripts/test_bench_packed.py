"""The benchmark of packed layers: its clock, its checks, and that every row runs."""

import json
import math
import sys
import time
from pathlib import Path

import pytest
import torch

SCRIPTS = str(Path(__file__).parents[2] / "scripts")
sys.path.insert(0, SCRIPTS)
import bench_packed  # noqa: E402
from _bench import layers, openvino_peer, ops  # noqa: E402
from _bench.bench import Bench  # noqa: E402
from _bench.figure import Figure  # noqa: E402
from _bench.probe import cycles, probe  # noqa: E402
from _bench.race import Race, race  # noqa: E402
from _bench.rows import ROWS  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")
needs_probe = pytest.mark.skipif(probe() is None, reason="no C compiler")


def quick(**options):
    return Bench(seconds=0.01, quick=True, probe=probe(), **options)


def test_what_takes_four_times_as_long_has_a_ratio_of_four():
    done = race({"a": lambda: time.sleep(0.001), "b": lambda: time.sleep(0.004)}, 0.1)
    assert 2.5 < done.ratio("b", "a") < 4.5
    assert done.minimum("a") >= 0.001
    assert 0.004 <= done.median("b") < 0.012


def test_ratios_are_medians_over_the_rounds():
    done = Race([{"a": 1.0, "b": 2.0}, {"a": 10.0, "b": 30.0}, {"a": 1.0, "b": 100.0}])
    assert done.ratio("b", "a") == 3.0
    assert done.median("a") == 1.0
    assert done.median("b") == 30.0
    assert done.minimum("b") == 2.0
    assert done.microseconds()["a"] == {"median": 1e6, "min": 1e6}


def test_every_function_gets_its_turn_after_what_belongs_before_it():
    calls = []
    runners = {name: lambda name=name: calls.append(name) for name in "ab"}
    before = {name: lambda name=name: calls.append(f"before {name}") for name in "ab"}
    rounds = race(runners, 0.0, before).rounds
    assert len(rounds) >= 5
    assert all(list(times) == ["a", "b"] for times in rounds)
    turns = [call for call, last in zip(calls, [None, *calls], strict=False) if call != last]
    for name in "ab":
        after = [turns[i + 1] for i, turn in enumerate(turns) if turn == f"before {name}"]
        assert set(after) == {name}


@pytest.mark.parametrize(
    ("value", "smaller", "verdict", "met"),
    [
        (2.5, False, "moonshot", True),
        (1.5, False, "met", True),
        (0.9, False, "10.0% short", False),
        (0.9, True, "moonshot", True),
        (1.1, True, "10.0% short", False),
        (1.0, False, "met", True),
        (None, False, "not here", None),
    ],
)
def test_a_verdict_says_how_far_it_is(value, smaller, verdict, met):
    moonshot = 0.95 if smaller else 2.0
    figure = Figure("case", value, "x", 1.0, moonshot, smaller, "not here")
    assert figure.verdict == verdict
    assert figure.record().get("met") == met


@needs_probe
def test_the_clock_is_one_of_a_processor():
    done = race({"clock": probe().chain()}, 0.05)
    assert 0.5e9 < 1 / done.each(lambda t: 1 / cycles(t)) < 8e9


@needs_probe
def test_the_reading_loop_reads_everything():
    x = torch.randint(-(2**62), 2**62, (3, 64))
    total = 0
    for value in x.flatten().tolist():
        total ^= value & (2**64 - 1)
    assert probe().read_only(x)() == total
    with pytest.raises(ValueError, match="multiples of 512 bytes; got 8"):
        probe().read_only(x[0, :1])


@needs_probe
def test_the_ceilings_are_in_the_order_of_their_instructions():
    ceilings = probe().ceilings(0.1)
    if not ceilings:
        pytest.skip("no 512-bit popcount here")
    assert ceilings["float_products"] < ceilings["bit_products"] < ceilings["prefix_products"]


def test_a_wrong_kernel_is_not_timed():
    operands = ops.matrix(3, 64, 128)
    operands.check()
    others = operands.words.clone()
    others[0, 5, 0, 1] ^= 1
    blob = torch.ops.lowbit.prepare(others, list(operands.geometry), "")
    with pytest.raises(AssertionError, match="3 of 192 integers are not the specification's"):
        operands._replace(blob=blob).check()


def test_products_are_counted_with_the_padding():
    assert ops.products(ops.matrix(3, 64, 128)) == 3 * 64 * 128
    assert ops.products(ops.convolution(64, 5)) == 25 * 64 * 64 * 9


def test_a_rival_that_is_wrong_is_not_timed():
    y = torch.randn(100)
    layers.close(y + 0.01 * torch.randn(100), y, 0.1)
    with pytest.raises(AssertionError, match="a rival is wrong"):
        layers.close(torch.randn(100), y, 0.1)
    with pytest.raises(AssertionError, match="a rival is wrong"):
        layers.close(y * torch.nan, y, 0.1)


def test_a_converted_layer_that_is_wrong_is_not_timed(monkeypatch):
    model, x = layers.conv_norm(64, 64), torch.randn(1, 64, 5, 5)
    layers.packed(model, x)
    wrong = layers.conv_norm(64, 64)
    wrong[1].running_mean[7] += 30
    convert = layers.lowbit.convert
    monkeypatch.setattr(layers.lowbit, "convert", lambda _, **options: convert(wrong, **options))
    with pytest.raises(AssertionError, match="Tensor-likes are not close"):
        layers.packed(model, x)


@pytest.mark.parametrize("row", ROWS)
def test_every_row_runs(row):
    figures = list(ROWS[row](quick()))
    assert figures
    for figure in figures:
        if figure.value is None:
            assert figure.note
        else:
            assert math.isfinite(figure.value)
            assert figure.value > 0
            assert figure.times
        assert figure.must is None


def test_without_openvino_its_row_says_so(monkeypatch):
    monkeypatch.setattr("_bench.rows.beside_openvino.openvino", lambda: None)
    figures = list(ROWS["openvino"](quick()))
    assert [figure.verdict for figure in figures] == ["openvino not installed"] * 2


@pytest.mark.skipif(openvino_peer.openvino() is None, reason="openvino not installed")
@pytest.mark.parametrize("residual", [False, True])
def test_openvinos_chain_computes_binary_convolutions(residual):
    chain = openvino_peer.Chain(64, 5, 2, residual, 1)
    chain.check()
    chain.weights[1][3].neg_()
    with pytest.raises(AssertionError):
        chain.check()


def test_two_threads_leave_the_number_of_threads_as_it_was():
    threads = torch.get_num_threads()
    list(ROWS["threads"](quick(threads=threads)))
    assert torch.get_num_threads() == threads


def test_the_script_writes_what_it_measured(tmp_path, capsys):
    threads = torch.get_num_threads()
    path = tmp_path / "packed.json"
    try:
        arguments = ["--quick", "--rows", "gemm,pack", "--threads", "1", "--output", str(path)]
        assert bench_packed.main(arguments) == 0
    finally:
        torch.set_num_threads(threads)
    result = json.loads(path.read_text())
    assert {"command", "commit", "dirty", "processor", "torch", "isa", "clock_ghz"} <= set(result)
    assert {figure["row"] for figure in result["figures"]} == {"gemm", "pack"}
    assert result["figures"][0]["microseconds"]["lowbit"]["median"] > 0
    assert "3 x 64 x 128" in capsys.readouterr().out


def test_goals_are_for_one_thread_and_full_sizes():
    assert Bench(threads=1).goal(6.0) == 6.0
    assert Bench(threads=2).goal(6.0) is None
    assert Bench(quick=True).goal(6.0) is None


def test_an_unknown_row_is_named():
    with pytest.raises(SystemExit, match="no row named 'gem'; known: gemm, conv"):
        bench_packed.main(["--rows", "gem"])


def test_without_the_compiled_kernels_nothing_is_measured(monkeypatch):
    monkeypatch.setattr(bench_packed.kernels, "available", lambda: False)
    with pytest.raises(SystemExit, match="install lowbit with a C\\+\\+ compiler"):
        bench_packed.main(["--rows", "gemm"])
