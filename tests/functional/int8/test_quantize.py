"""Rounding, limits, and the errors of ``quantize``."""

import pytest
import torch

from lowbit.functional.int8 import (
    choose_qparams,
    dequantize,
    dynamic_qparams,
    limits,
    plain_dtype,
    quantize,
)

DTYPES = [torch.uint8, torch.int8, torch.int32]


@pytest.mark.parametrize("name", ["quint8", "torch.quint8", "uint8", torch.uint8])
def test_names_of_both_worlds_are_one_dtype(name):
    assert plain_dtype(name) is torch.uint8


@pytest.mark.skipif(not hasattr(torch, "qint8"), reason="torch has no quantized dtypes")
def test_quantized_dtypes_are_known():
    found = [plain_dtype(dtype) for dtype in (torch.quint8, torch.qint8, torch.qint32)]
    assert found == DTYPES


@pytest.mark.parametrize("name", [torch.int16, "int4", torch.float32, 8])
def test_an_unknown_dtype_is_refused_with_the_known_ones(name):
    with pytest.raises(ValueError, match=r"no integer dtype .*known: uint8, quint8, int8"):
        plain_dtype(name)


@pytest.mark.parametrize("dtype", DTYPES)
def test_ties_go_to_the_even_number_before_the_zero_point(dtype):
    x = torch.tensor([-1.5, -0.5, 0.5, 1.5, 2.5])
    assert quantize(x, 1.0, 7, dtype).tolist() == [5, 7, 7, 9, 9]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("end", [0, 1])
def test_everything_beyond_the_limits_saturates(dtype, end):
    low, high = limits(dtype)
    x = torch.tensor([-torch.inf, -1e30, -5e9, 5e9, 1e30, torch.inf, torch.nan])
    expected = [low] * 3 + [high] * 3 + [low]
    assert quantize(x, 1.0, (low, high)[end], dtype).tolist() == expected


def test_it_multiplies_by_the_rounded_reciprocal():
    scale = torch.tensor(0.05)
    ties = ((torch.arange(-100, 100) + 0.5).double() * 0.05).float()
    expected = torch.round(ties * (1 / scale)).to(torch.int8)
    assert torch.equal(quantize(ties, 0.05, 0, torch.int8), expected)
    assert not torch.equal(torch.round(ties / scale).to(torch.int8), expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_quantized_as_the_numbers_that_it_holds(dtype):
    x = torch.randn(50).to(dtype)
    assert torch.equal(quantize(x, 0.03, 5, "int8"), quantize(x.float(), 0.03, 5, "int8"))


@pytest.mark.parametrize("dtype", [torch.float64, torch.int32, torch.bool, torch.complex64])
def test_other_dtypes_are_refused(dtype):
    with pytest.raises(TypeError, match=r"cannot quantize .*x\.float\(\) first"):
        quantize(torch.zeros(3, dtype=dtype), 0.1, 0, "int8")


@pytest.mark.parametrize("scale", [0.0, -0.1, torch.inf, torch.nan, 1e-45, 1e39])
def test_a_scale_without_reciprocal_is_refused(scale):
    with pytest.raises(ValueError, match="scale must be positive and finite"):
        quantize(torch.zeros(3), scale, 0, "int8")
    with pytest.raises(ValueError, match="scale must be positive and finite"):
        quantize(
            torch.zeros(3), torch.tensor([1.0, scale, 2.0]).double(), torch.zeros(3), "int8", 0
        )


@pytest.mark.parametrize(("dtype", "zero_point"), [("uint8", -1), ("uint8", 256), ("int8", 128)])
def test_a_zero_point_outside_the_dtype_is_refused(dtype, zero_point):
    with pytest.raises(ValueError, match=f"zero point {zero_point} is outside"):
        quantize(torch.zeros(3), 1.0, zero_point, dtype)
    with pytest.raises(ValueError, match=f"zero point {zero_point} is outside"):
        quantize(torch.zeros(2), torch.ones(2), torch.tensor([0, zero_point]), dtype, 0)


def test_channels_are_quantized_one_by_one():
    x, scales, zero_points = torch.randn(2, 3, 4), torch.rand(3) + 0.01, torch.tensor([0, 7, -9])
    found = quantize(x, scales, zero_points, "qint8", axis=-2)
    for c in range(3):
        one = quantize(x[:, c], scales[c].item(), zero_points[c].item(), "qint8")
        assert torch.equal(found[:, c], one)
    back = dequantize(found, scales, zero_points, axis=1)
    assert (back - x).abs().amax((0, 2)).lt(scales * 0.51).all()


def test_real_zero_points_are_added_before_rounding():
    x, scales, zero_points = torch.tensor([[0.3, 0.9]]), torch.tensor([1.0]), torch.tensor([0.3])
    assert quantize(x, scales, zero_points, "uint8", 0).tolist() == [[1, 1]]
    back = dequantize(torch.ones(1, 2, dtype=torch.uint8), scales, zero_points, 0)
    torch.testing.assert_close(back, torch.full((1, 2), 0.7))


@pytest.mark.parametrize("axis", [2, -3])
def test_an_axis_outside_the_tensor_is_refused(axis):
    with pytest.raises(ValueError, match=f"axis {axis} is outside"):
        quantize(torch.zeros(2, 2), torch.ones(2), torch.zeros(2), "int8", axis)


def test_vectors_of_another_length_are_refused():
    with pytest.raises(ValueError, match="one for each of its 2 channels"):
        quantize(torch.zeros(2, 3), torch.ones(3), torch.zeros(3), "int8", 0)


@pytest.mark.parametrize("dtype", DTYPES)
def test_dequantizing_subtracts_before_it_rounds(dtype):
    low, high = limits(dtype)
    values = torch.tensor([low, high], dtype=dtype)
    expected = torch.tensor([low - high, 0], dtype=torch.float64).float()
    assert torch.equal(dequantize(values, 1.0, high), expected)


def test_a_chosen_range_holds_zero_and_both_ends():
    for low, high in [(-1.0, 3.0), (2.0, 5.0), (-5.0, -2.0), (-1e-7, 1e-7), (0.0, 0.0)]:
        scale, zero_point = choose_qparams(low, high)
        assert (0 - zero_point) * scale <= min(low, 0.0) + scale / 2
        assert (255 - zero_point) * scale >= max(high, 0.0) - scale / 2
        assert 0 <= zero_point <= 255


def test_the_zero_point_is_rounded_from_the_end_with_the_smaller_error():
    low, high = -157.15, 21.35
    scale, zero_point = choose_qparams(low, high, -128, 127)
    # A tie, which the two ends compute on either side.
    assert round(-128 - low / scale) == 97
    assert zero_point == round(127 - high / scale) == 96


@pytest.mark.parametrize("ends", [(torch.nan, 1.0), (-torch.inf, 0.0), (1.0, 0.0)])
def test_a_range_without_ends_is_refused(ends):
    with pytest.raises(ValueError, match="finite and in order"):
        choose_qparams(*ends)


def test_an_empty_tensor_has_the_range_of_a_zero():
    assert dynamic_qparams(torch.zeros(0)) == dynamic_qparams(torch.zeros(3)) == (0.1, 0)
