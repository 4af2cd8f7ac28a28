"""The recording is read as it was written."""

import pytest
import torch

from lowbit.qtensor import QTensor
from tests.golden.cases import build, cases, nibbles


def test_a_case_has_tensors_quantized_tensors_and_numbers():
    case = next(c for c in cases("F.linear") if c.id == "F.linear.pc_wzp")
    x, weight = case.inputs["input"], case.inputs["weight"]
    assert isinstance(x, QTensor)
    assert x.dtype == torch.uint8
    assert weight.axis == 0
    assert weight.dtype == torch.int8
    assert weight.zero_point.dtype == torch.int64
    assert case.inputs["bias"].dtype == torch.float32
    assert isinstance(case.inputs["scale"], float)
    assert isinstance(case.out, QTensor)


def test_the_spread_of_the_engines_is_the_greatest_difference():
    found = {case.id: case.spread() for case in cases("F.linear")}
    assert found["F.linear.ties"] == 23
    assert found["F.linear.pc_wzp"] == 0  # one engine refuses it, the others agree


def test_a_refused_call_has_its_error_and_no_result():
    case = next(c for c in cases("Quantize") if c.id == "quantize.err.zp_range")
    assert case.error["type"] == "RuntimeError"
    assert case.out is None


def test_every_case_is_read_and_an_unknown_name_is_not_silent():
    assert len({case.id for case in cases()}) == len(cases()) > 300
    with pytest.raises(AssertionError, match="no case"):
        cases("F.quantum_pool")


def test_lists_and_mappings_are_built_inside():
    assert build({"a": [1, {"b": None}]}) == {"a": [1, {"b": None}]}


def test_nibbles_come_low_half_first():
    assert nibbles(torch.tensor([[0x21, 0x43]], dtype=torch.uint8)).tolist() == [[1, 2, 3, 4]]
