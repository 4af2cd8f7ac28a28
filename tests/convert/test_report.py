"""What the report says is what was done."""

import json

from torch import nn

import lowbit
from lowbit.models import ResNet18, VGGSmall
from lowbit.nn import QConv2d
from tests.convert._networks import SIGN, Plain, shaken


def size(module: nn.Module) -> int:
    return sum(t.numel() * t.element_size() for t in module.state_dict().values())


def test_bytes_are_those_of_the_state():
    model = shaken(VGGSmall(width=16, **SIGN))
    converted, report = lowbit.convert(model, keep_slower=True)
    assert (report.bytes_before, report.bytes_after) == (size(model), size(converted))
    for row in report:
        assert row.bytes_before == size(model.get_submodule(row.name))
        assert row.bytes_after == size(converted.get_submodule(row.name))
        weight = model.get_submodule(row.name).weight
        words = -(-weight.shape[1] // 64) * 8 * weight[:, 0].numel()
        assert words <= row.bytes_after <= words + 3 * 4 * len(weight)


def test_bytes_of_a_shared_layer_count_once():
    layer = QConv2d(32, 32, 3, bias=False, **SIGN)
    model = nn.Sequential(layer, layer)
    _, report = lowbit.convert(model, keep_slower=True)
    assert report.bytes_before == size(layer)
    assert report.bytes_after == report[0].bytes_after


def test_the_kernel_is_the_one_in_use(monkeypatch):
    for isa in lowbit.kernels.isas():
        if lowbit.kernels.available():
            monkeypatch.setenv("LOWBIT_ISA", isa)
        _, report = lowbit.convert(shaken(Plain([])), keep_slower=True)
        assert [row.kernel for row in report] == [isa, isa]


def test_the_table_fits_its_width_and_names_every_layer():
    model = shaken(ResNet18(width=16, downsample="quantized", **SIGN))
    model.layer1[0].conv1 = QConv2d(16, 16, 3, padding=1, weight_quantization="sign")
    _, report = lowbit.convert(model)
    lines = str(report).splitlines()
    assert max(map(len, lines)) <= 120
    for row in report:
        line = next(line for line in lines if line.startswith(row.name))
        assert f"{row.bytes_before:,}" in line
        assert row.kind in line
        assert (row.kernel in line and row.output in line) if row.packed else row.why[:20] in line
    packed = sum(row.packed for row in report)
    assert packed < len(report)
    assert lines[-1].startswith(f"{packed} of {len(report)} quantized layers packed")


def test_the_table_says_the_whole_of_a_reason():
    _, report = lowbit.convert(shaken(Plain([])), keep_slower=True)
    report[0].why = "its input has no scale: " + "look at the data, " * 12 + "and convert again"
    report.folding = report[0].why
    lines = str(report).splitlines()
    assert max(map(len, lines)) <= 120
    words = " ".join(" ".join(lines).split())
    assert words.count(report[0].why) == 1 + 1  # in its row and at the end
    second = next(i for i, line in enumerate(lines) if line.startswith("second"))
    assert all(line.startswith("     ") for line in lines[3:second])


def test_a_table_without_layers_is_a_table():
    report = lowbit.convert(nn.Linear(2, 2)).report
    assert "0 of 0 quantized layers packed; the model's 24 bytes become 24" in str(report)


def test_the_table_says_why_nothing_is_folded():
    assert str(lowbit.convert(Plain([]), fold=False).report).endswith("nothing folded: fold=False")


def test_it_goes_into_json():
    _, report = lowbit.convert(shaken(Plain([nn.BatchNorm2d(32)])), keep_slower=True)
    data = json.loads(json.dumps(report.to_dict()))
    assert data["bytes_after"] == report.bytes_after
    assert [layer["name"] for layer in data["layers"]] == ["first", "second"]
    assert data["layers"][0]["output"] == "bits"
    assert data["layers"][0]["folded"] == ["between.0"]
    assert data["layers"][0]["bits"] == "1x1"


def test_it_is_a_sequence_of_rows():
    _, report = lowbit.convert(shaken(Plain([])))
    assert [row.name for row in report] == [report[0].name, report[1].name]
    assert report[:1] == [report[0]]
    assert len(report) == 2
