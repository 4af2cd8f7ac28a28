"""The network of MNIST-1D."""

import pytest
import torch

from lowbit import convert
from lowbit.models import ConvNet1d


def test_it_has_the_published_parameters_but_for_batch_norms_in_place_of_biases():
    assert sum(p.numel() for p in ConvNet1d().parameters()) == 5210 + 3 * 25


def test_packed_it_scores_the_same():
    torch.manual_seed(0)
    model = ConvNet1d(channels=64, input_quantization="sign", weight_quantization="sign").eval()
    packed, report = convert(model)
    x = torch.randn(8, 40, 1, 1)
    torch.testing.assert_close(packed(x), model(x))
    assert sum(row.packed for row in report) == 2


def test_a_signal_that_is_too_short_is_refused():
    with pytest.raises(ValueError, match="a signal of 7 numbers"):
        ConvNet1d(in_channels=7)
