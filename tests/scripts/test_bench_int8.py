"""The benchmark of int8: its checks, its breakdown of a network, and that every row runs."""

import json
import math
import os
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import lowbit
from lowbit.nn import quantized

SCRIPTS = str(Path(__file__).parents[2] / "scripts")
sys.path.insert(0, SCRIPTS)
import bench_int8  # noqa: E402
from _bench.bench import Bench  # noqa: E402
from _bench.figure import Figure  # noqa: E402
from _bench.int8 import contenders, digits, layers, legacy, onnx_peers, resnet, where  # noqa: E402
from _bench.int8.absent import NotHere  # noqa: E402
from _bench.int8.folded import folded  # noqa: E402
from _bench.int8.quality import near, same_integers, sqnr  # noqa: E402
from _bench.int8.rows import ROWS  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")
needs_torchvision = pytest.mark.skipif(
    bench_int8.version("torchvision") is None, reason="torchvision not installed"
)
needs_legacy = pytest.mark.skipif(legacy.reason() is not None, reason=str(legacy.reason()))


def quick():
    return Bench(seconds=0.01, quick=True)


def test_a_hundredth_of_the_amplitude_is_forty_decibels():
    y = torch.tensor([3.0, -4.0])
    assert sqnr(y * 1.01, y) == pytest.approx(40.0, abs=1e-4)
    assert sqnr(y, y) == math.inf


@pytest.mark.parametrize("wrong", [0.0, 0.5, math.nan])
def test_a_contender_that_is_wrong_is_not_timed(wrong):
    y = torch.randn(100)
    near(y * 1.01, y, 20.0, "it")
    with pytest.raises(AssertionError, match="it is wrong"):
        near(y * wrong, y, 20.0, "it")


def test_integers_may_differ_by_one_in_a_thousand():
    y = torch.arange(2000) % 200
    one, two = y.clone(), y.clone()
    one[5] += 1
    two[5] += 2
    same_integers(one, y, "it")
    with pytest.raises(AssertionError, match=r"1 of 2000 integers differ .* by up to 2"):
        same_integers(two, y, "it")
    with pytest.raises(AssertionError, match="3 of 2000 integers differ"):
        same_integers(torch.where(torch.arange(2000) < 3, y + 1, y), y, "it")


@needs_torchvision
def test_the_network_is_drawn_once_with_uniform_weights():
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    one = resnet.task(quick=True)
    assert torch.equal(torch.random.get_rng_state(), before)
    other = resnet.task(quick=True)
    for ours, theirs in zip(one.model.parameters(), other.model.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    assert torch.equal(one.calibration, other.calibration)
    assert not torch.equal(one.calibration, one.held_out)
    for module in one.model.modules():
        assert not module.training
        if isinstance(module, nn.Conv2d):
            # Uniform within 1 / sqrt(inputs of a filter); a normal draw would go beyond.
            assert module.weight.abs().max() <= module.weight[0].numel() ** -0.5


@needs_torchvision
def test_folding_keeps_what_the_network_computes():
    work = resnet.task(quick=True)
    copy = folded(work.model)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in copy.modules())
    with torch.inference_mode():
        expected, ours = work.model(work.held_out), copy(work.held_out)
    torch.testing.assert_close(ours, expected, rtol=1e-3, atol=1e-3)


@needs_torchvision
@pytest.mark.parametrize("name", list(contenders.CONTENDERS))
def test_every_contender_computes_the_network(name):
    work = resnet.task(quick=True)
    try:
        make = contenders.CONTENDERS[name](work)
    except NotHere as error:
        pytest.skip(str(error))
    with torch.inference_mode():
        expected = work.model(work.held_out)
        for batch in (1, 8):
            near(make(work.held_out[:batch])(), expected[:batch], 10.0, name)


def test_what_is_not_installed_is_a_reason_in_the_table(monkeypatch):
    def absent(task):
        raise NotHere("that is not installed")

    monkeypatch.setattr(contenders, "CONTENDERS", {"that": absent, "this": lambda task: task})
    assert contenders.made("the task") == ({"this": "the task"}, {"that": "that is not installed"})
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(NotHere, match="not installed"):
        onnx_peers.onnxruntime()


def test_without_torch_ao_the_legacy_column_says_so(monkeypatch):
    def absent():
        raise NotHere("torch 9 has no torch.ao int8")

    monkeypatch.setattr(legacy, "torch_ao", absent)
    figures = list(ROWS["linear"](quick())) + list(ROWS["pieces"](quick()))
    beside = [figure for figure in figures if figure.unit == "x legacy"]
    assert beside
    assert {figure.verdict for figure in beside} == {"torch 9 has no torch.ao int8"}
    assert all(figure.value > 0 for figure in figures if figure.unit != "x legacy")


@needs_legacy
def test_a_layer_with_other_integers_than_the_legacy_one_is_not_timed(monkeypatch):
    layer, x = nn.Linear(32, 32), torch.randn(4, 32)
    arguments = {"in_features": 32, "out_features": 32}
    layers.static(layer, "Linear", x, arguments)
    weighted = legacy.weighted

    def shifted(*parts, **more):
        made = weighted(*parts, **more)
        made.zero_point += 2
        return made

    monkeypatch.setattr(legacy, "weighted", shifted)
    with pytest.raises(AssertionError, match="integers differ from the legacy engine's"):
        layers.static(layer, "Linear", x, arguments)


def test_a_layer_that_is_wrong_is_not_timed(monkeypatch):
    layer, x = nn.Linear(32, 32), torch.randn(4, 32)
    quantize = lowbit.quantize_per_channel

    def turned(weight, *others):
        return quantize(weight.flip(0), *others)

    monkeypatch.setattr(layers.lowbit, "quantize_per_channel", turned)
    with pytest.raises(AssertionError, match="lowbit's Linear is wrong"):
        layers.static(layer, "Linear", x, {"in_features": 32, "out_features": 32})


@needs_torchvision
def test_the_digits_are_learned():
    pytest.importorskip("sklearn")
    work = digits.task(quick=True)
    assert work.held_out.shape == (297, 3, 32, 32)
    with torch.inference_mode():
        right = work.model(work.held_out).argmax(1) == work.labels
    assert right.float().mean() > 0.6


@needs_torchvision
@pytest.mark.parametrize("row", ROWS)
def test_every_row_runs(row):
    try:
        figures = list(ROWS[row](quick()))
    except NotHere as error:
        pytest.skip(str(error))
    assert figures
    for figure in figures:
        assert figure.must is None
        if figure.value is None:
            assert figure.note
        else:
            assert math.isfinite(figure.value)
            assert figure.value > 0
            assert figure.times or figure.unit == "dB"


def graph():
    """An int8 network of four nodes as a GraphModule."""

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.quant = quantized.Quantize(0.02, 128, "uint8")
            self.conv = quantized.Conv2d(16, 16, 3, padding=1)
            self.dequant = quantized.DeQuantize()

        def forward(self, x):
            return self.dequant(self.conv(self.quant(x))).mean((2, 3))

    class Tracer(torch.fx.Tracer):
        def is_leaf_module(self, module, name):
            return True

    net = Net().eval()
    return torch.fx.GraphModule(net, Tracer().trace(net))


def test_the_breakdown_has_every_node_and_what_lies_inside_it():
    x = torch.randn(1, 16, 30, 30).contiguous(memory_format=torch.channels_last)
    found = where.breakdown(graph(), x, 5)
    assert [node.kind for node in found.nodes] == ["Quantize", "Conv2d", "DeQuantize", "mean"]
    for node in found.nodes:
        assert 0 < node.operators <= node.total < found.network
        assert node.python == node.total - node.operators
    conv = found.nodes[1]
    if lowbit.kernels.int8.available():
        assert 0 < conv.onednn <= conv.total
        assert found.nodes[3].onednn == 0
    assert found.glue == pytest.approx(found.network - sum(n.total for n in found.nodes))
    assert set(found.record()) == {"network", "glue", "sums", "nodes"}


def test_operators_of_python_are_told_from_compiled_ones():
    library = torch.library.Library("bench_int8_test", "DEF")
    for name, key in (("processor", "CPU"), ("general", "CompositeExplicitAutograd")):
        library.define(f"{name}(Tensor x) -> Tensor")
        library.impl(name, lambda x: x + 1, key)
        assert where._in_python(f"bench_int8_test::{name}")
    assert not where._in_python("aten::add")
    assert not where._in_python("onednn::qconv_pointwise")


def test_what_onednn_prints_is_read_and_not_shown(capfd):
    os.write(1, b"before\n")
    where.breakdown(graph(), torch.randn(1, 16, 8, 8), 2)
    os.write(1, b"after\n")
    assert capfd.readouterr().out == "before\nafter\n"


def test_onednns_lines_are_read_in_microseconds():
    line = "onednn_verbose,v1,primitive,exec,cpu,convolution,brgconv,mb1_ic64oc64,0.25"
    assert where._primitive(line) == 250.0
    assert where._primitive("onednn_verbose,v1,info,cpu,runtime:OpenMP,nthr:1") == 0.0
    assert where._primitive(line.replace(",exec,", ",create:cache_miss,")) == 0.0


@pytest.mark.parametrize(
    ("value", "must", "smaller", "share"),
    [
        (4.6, 4.6, False, 1.0),
        (2.3, 4.6, False, 0.5),
        (2.0, 4.0, True, 2.0),
        (None, 1.0, False, None),
        (1.0, None, False, None),
    ],
)
def test_the_share_is_the_part_of_must_that_is_reached(value, must, smaller, share):
    assert bench_int8.share(Figure("case", value, "x", must, smaller=smaller)) == share


def test_an_unknown_row_is_named():
    with pytest.raises(SystemExit, match="no row named 'resnet'; known: resnet18, trained, linear"):
        bench_int8.main(["--rows", "resnet"])


def test_without_fast_int8_nothing_is_measured(monkeypatch):
    monkeypatch.setattr(bench_int8.int8, "available", lambda: False)
    monkeypatch.setattr(bench_int8.int8, "why_not", lambda: "this processor has no VNNI")
    with pytest.raises(SystemExit, match="this processor has no VNNI"):
        bench_int8.main(["--rows", "calls"])


def test_a_row_that_needs_what_is_not_here_says_so(monkeypatch, capsys):
    def absent(bench):
        raise NotHere("torchvision not installed")

    threads = torch.get_num_threads()
    monkeypatch.setitem(bench_int8.ROWS, "resnet18", absent)
    try:
        bench_int8.main(["--quick", "--rows", "resnet18"])
    finally:
        torch.set_num_threads(threads)
    assert "torchvision not installed" in capsys.readouterr().out


@needs_torchvision
def test_the_script_writes_what_it_measured(tmp_path, capsys):
    threads = torch.get_num_threads()
    path = tmp_path / "int8.json"
    try:
        arguments = ["--quick", "--rows", "calls,linear", "--where", "--output", str(path)]
        assert bench_int8.main(arguments) == 0
    finally:
        torch.set_num_threads(threads)
    result = json.loads(path.read_text())
    assert {"command", "commit", "dirty", "processor", "torch", "onnxruntime"} <= set(result)
    assert {figure["row"] for figure in result["figures"]} == {"calls", "linear"}
    assert all("share" in figure and "must" in figure for figure in result["figures"])
    assert result["where"][0]["threads"] == 1
    assert len(result["where"][0]["nodes"]) > 10
    shown = capsys.readouterr().out
    assert "3 x 64 to 64" in shown
    assert "Where the time goes" in shown
