"""The benchmark of exported networks: that it runs, and what it refuses."""

import json
import sys
from pathlib import Path

import pytest
import torch

for _package in ("onnx", "onnxruntime", "openvino"):
    pytest.importorskip(_package)

SCRIPTS = str(Path(__file__).parents[2] / "scripts")
sys.path.insert(0, SCRIPTS)
import bench_export  # noqa: E402


def test_every_form_takes_its_turn_and_the_record_says_so(tmp_path):
    output = tmp_path / "export.json"
    found = bench_export.main(["--quick", "--seconds", "0.01", "--output", str(output)])
    assert json.loads(output.read_text()) == found
    records = {record["runs in"]: record for record in found["records"]}
    assert len(records) == 7
    assert records["lowbit"]["times_lowbit"] == 1.0
    for record in records.values():
        assert record["largest_difference"] < 1e-4
        assert record["milliseconds"] >= record["milliseconds_least"] > 0
    assert records["OpenVINO, BinaryConvolution"]["bytes"] > 0


def test_another_class_ends_it():
    model = torch.nn.Identity()
    images = torch.tensor([[1.0, 2.0], [4.0, 3.0]])
    assert bench_export.difference(model, lambda x: x + 0.25, images) == 0.0625
    with pytest.raises(AssertionError, match="other classes"):
        bench_export.difference(model, lambda x: x.flip(1), images)


def test_an_unknown_network_is_named():
    with pytest.raises(SystemExit, match="no network named 'x'; known: VGG-small"):
        bench_export.main(["--networks", "x"])
