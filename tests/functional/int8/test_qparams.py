"""One rule for scale and zero point."""

import pytest
import torch

from lowbit.functional.int8.qparams import EPS, float_qparams, qparams


def both(minimum, maximum, *args, **kwargs):
    scale, zero_point = qparams(torch.tensor(minimum), torch.tensor(maximum), *args, **kwargs)
    return scale.tolist(), zero_point.tolist()


@pytest.mark.parametrize(("minimum", "maximum"), [(-3.0, 1.0), (0.5, 2.0), (-2.0, -0.5)])
@pytest.mark.parametrize(("low", "high"), [(0, 255), (-128, 127), (0, 15), (-8, 7)])
def test_the_grid_holds_the_range_and_zero(minimum, maximum, low, high):
    scale, zero_point = both(minimum, maximum, low, high)
    assert low <= zero_point <= high
    assert (low - zero_point) * scale <= minimum + scale
    assert (high - zero_point) * scale >= maximum - scale
    assert scale == pytest.approx((max(maximum, 0) - min(minimum, 0)) / (high - low), rel=1e-6)


def test_a_symmetric_scale_is_by_half_of_the_levels():
    assert both(-1.0, 2.55, -128, 127, middle=0) == (pytest.approx(2.55 / 127.5), 0)
    assert both(-5.1, 2.0, 0, 255, middle=128) == (pytest.approx(5.1 / 127.5), 128)


def test_zeros_have_the_smallest_scale():
    assert both(0.0, 0.0, 0, 255) == (EPS, 0)
    assert both(0.0, 0.0, 0, 255, eps=2**-12) == (2**-12, 0)


@pytest.mark.parametrize("middle", [None, 0, 128])
def test_nothing_seen_is_scale_one_and_zero_point_zero(middle):
    assert both(torch.inf, -torch.inf, 0, 255, middle=middle) == (1.0, 0)


def test_nan_gives_a_scale_of_nan_and_a_code_as_zero_point():
    scale, zero_point = both(torch.nan, torch.nan, -8, 7)
    assert scale != scale
    assert zero_point == -8


def test_int32_ranges_are_not_rounded_to_float32():
    # Scales large enough not to be the smallest one.
    _, zero_point = both(-4096.0, 4096.0, -(2**31), 2**31 - 1)
    assert zero_point == 0
    assert both(-4096.0, 0.0, -(2**31), 2**31 - 1)[1] == 2**31 - 1


def test_channels_are_on_their_own():
    minimum, maximum = torch.tensor([-1.0, 0.0, torch.inf]), torch.tensor([1.0, 4.0, -torch.inf])
    scale, zero_point = qparams(minimum, maximum, 0, 255)
    for channel in range(3):
        one = qparams(minimum[channel], maximum[channel], 0, 255)
        assert (scale[channel], zero_point[channel]) == one


def test_float_zero_points_lay_exactly_the_range_over_the_codes():
    minimum, maximum = torch.tensor([1.0, -3.0, 2.0]), torch.tensor([2.0, -1.0, 2.0])
    scale, zero_point = float_qparams(minimum, maximum, 0, 15)
    assert torch.allclose(minimum / scale + zero_point, torch.zeros(3), atol=1e-5)
    ends = maximum / scale + zero_point
    assert torch.allclose(ends, torch.tensor([15.0, 15.0, 0.0]), atol=1e-4)
    assert scale[2] == 1
