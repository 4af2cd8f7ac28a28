"""Pooling of integers is pooling of the numbers that they stand for."""

import pytest
import torch
import torch.nn.functional as F

from lowbit.functional.int8 import limits, pool

GEOMETRY = [
    {"kernel_size": 3, "stride": 2, "padding": 1},
    {"kernel_size": 3, "stride": 2, "padding": 1, "ceil_mode": True},
    {"kernel_size": 2},
    {"kernel_size": 2, "stride": 3, "ceil_mode": True},
    {"kernel_size": 3, "stride": 1, "padding": 1, "dilation": 2},
    {"kernel_size": 1, "stride": 2},
    {"kernel_size": 4, "stride": 3, "padding": 2, "ceil_mode": True},
]
FLOAT = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}


def integers(dtype, *shape):
    low, high = limits(dtype)
    return torch.randint(max(low, -(2**24)), min(high, 2**24) + 1, shape).to(dtype)


@pytest.mark.parametrize("axes", [1, 2, 3])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int32])
@pytest.mark.parametrize("options", GEOMETRY, ids=str)
def test_max_pool_is_that_of_floats(axes, dtype, options):
    for shape in ((2, 3, 9, 7, 8), (3, 10, 5, 6)):
        values = integers(dtype, *shape[: len(shape) - 3 + axes])
        expected = FLOAT[axes](values.double(), **options).to(dtype)
        assert torch.equal(pool.max_pool(values, axes, **options), expected)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8])
def test_max_pool_keeps_channels_last_and_takes_large_images(dtype):
    values = integers(dtype, 1, 4, 40, 40).contiguous(memory_format=torch.channels_last)
    found = pool.max_pool(values, 2, 3, 2, 1)
    assert found.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(found, F.max_pool2d(values.float(), 3, 2, 1).to(dtype))


def test_max_pool_of_sizes_by_axis():
    values = integers(torch.uint8, 2, 3, 9, 8)
    expected = F.max_pool2d(values.float(), (3, 2), (1, 2), (1, 0)).to(torch.uint8)
    assert torch.equal(pool.max_pool(values, 2, [3, 2], (1, 2), [1, 0]), expected)


def test_a_window_of_one_gives_integers_of_its_own():
    values = integers(torch.uint8, 1, 1, 4, 4)
    found = pool.max_pool(values, 2, 1)
    assert torch.equal(found, values)
    assert found.data_ptr() != values.data_ptr()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kernel_size": 2, "padding": 2}, "more than half"),
        ({"kernel_size": 9}, "does not fit"),
        ({"kernel_size": 2, "stride": 0}, "stride 0"),
        ({"kernel_size": (2, 2, 2)}, "3 sizes"),
    ],
)
def test_windows_that_make_no_sense_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        pool.max_pool(integers(torch.uint8, 1, 1, 4, 4), 2, **options)


@pytest.mark.parametrize("function", [pool.max_pool, pool.avg_pool, pool.adaptive_avg_pool])
def test_a_tensor_with_too_few_axes_is_refused(function):
    args = (2, 1) if function is pool.max_pool else (0, 2, 1)
    with pytest.raises(ValueError, match="must have 3 or 4 axes"):
        function(integers(torch.uint8, 4, 4), *args)


AVERAGES = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}


@pytest.mark.parametrize("axes", [1, 2, 3])
@pytest.mark.parametrize("count_include_pad", [True, False])
def test_averages_round_half_to_even_and_padding_is_zero(axes, count_include_pad):
    values = integers(torch.uint8, 2, 3, 6, 7, 5)[(..., *[0] * (3 - axes))]
    mean = AVERAGES[axes](
        values.double() - 37, 2, 2, 1, ceil_mode=True, count_include_pad=count_include_pad
    )
    assert (mean % 1 == 0.5).any()
    found = pool.avg_pool(values, 37, axes, 2, 2, 1, True, count_include_pad)
    assert torch.equal(found, (torch.round(mean) + 37).to(torch.uint8))


def test_a_divisor_replaces_the_number_of_elements_and_saturates():
    values = torch.full((1, 1, 2, 2), 200, dtype=torch.uint8)
    assert pool.avg_pool(values, 100, 2, 2, divisor_override=8).item() == 150
    assert pool.avg_pool(values, 100, 2, 2, divisor_override=1).item() == 255
    with pytest.raises(ValueError, match="must not be 0"):
        pool.avg_pool(values, 100, 2, 2, divisor_override=0)
    with pytest.raises(ValueError, match="avg_pool1d has no divisor_override"):
        pool.avg_pool(values[0], 100, 1, 2, divisor_override=2)


@pytest.mark.parametrize(("axes", "size"), [(1, 4), (2, (3, None)), (3, 2)])
def test_adaptive_averages_are_those_of_floats(axes, size):
    values = integers(torch.int8, 2, 3, 6, 7, 5)[(..., *[0] * (3 - axes))]
    function = (F.adaptive_avg_pool1d, F.adaptive_avg_pool2d, F.adaptive_avg_pool3d)[axes - 1]
    expected = torch.round(function(values.double() + 9, size)) - 9
    assert torch.equal(pool.adaptive_avg_pool(values, -9, axes, size), expected.to(torch.int8))
