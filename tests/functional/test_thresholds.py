import pytest
import torch
import torch.nn.functional as F

from lowbit.functional import sign
from lowbit.functional.thresholds import integer_thresholds


@pytest.mark.parametrize("bound", [1, 9, 64, 4608])
def test_thresholds_give_the_sign_of_batch_norm_for_every_accumulator(bound):
    channels = 64
    gamma = torch.randn(channels)
    gamma[:4] = torch.tensor([0.0, -0.0, 1e-30, -1e-30])
    beta, mean = torch.randn(channels), torch.randn(channels) * bound / 4
    beta[0], beta[1], beta[4:8] = -0.5, 0.5, 0.0
    mean[4:8] = torch.arange(4.0) - 1  # ties: an accumulator at the mean has output 0
    variance, scale = torch.rand(channels) * bound, torch.rand(channels)

    def between(v):
        return F.batch_norm(v * scale, mean, variance, gamma, beta, eps=1e-5)

    t, flip = integer_thresholds(between, bound)
    v = torch.arange(-bound, bound + 1)
    bits = (v.unsqueeze(1) < t) ^ flip
    assert torch.equal(1.0 - 2.0 * bits, sign(between(v.float().unsqueeze(1))))


def test_a_sign_that_turns_twice_has_no_threshold():
    with pytest.raises(ValueError, match=r"more than once .* channels \[0\]"):
        integer_thresholds(lambda v: v * v - 2, 4)


def test_a_nan_has_no_threshold():
    with pytest.raises(ValueError, match=r"NaN: channels \[1\]"):
        integer_thresholds(lambda v: v * torch.tensor([1.0, float("nan")]), 4)
