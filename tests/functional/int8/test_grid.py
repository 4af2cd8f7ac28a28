"""Finding the step of values that lie on a grid."""

import pytest
import torch

from lowbit.functional.int8.grid import step_of


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
@pytest.mark.parametrize("scale", [3e-4, 0.1, 7.7])
def test_it_is_found_whatever_codes_are_in_use(bits, scale):
    codes = torch.randint(-(2 ** (bits - 1)), 2 ** (bits - 1), (40,)).float()
    codes[:2] = torch.tensor([3.0, 2.0])  # coprime, so that no larger step does
    assert step_of(scale * codes) == pytest.approx(scale, rel=1e-5)


def test_coprime_codes_alone_tell_the_step():
    assert step_of(0.05 * torch.tensor([100.0, -37.0])) == pytest.approx(0.05, rel=1e-5)


def test_plus_and_minus_one_have_a_step_of_one():
    assert step_of(torch.tensor([1.0, -1.0, 1.0])) == 1


def test_zeros_have_a_step_of_one():
    assert step_of(torch.zeros(4)) == 1
    assert step_of(torch.zeros(0)) == 1


@pytest.mark.parametrize(
    "values",
    [torch.linspace(0.1, 3.14159, 1000), torch.tensor([1.0, 300.0]), torch.tensor([torch.nan])],
    ids=["many", "far apart", "nan"],
)
def test_others_have_none(values):
    assert step_of(values) is None
