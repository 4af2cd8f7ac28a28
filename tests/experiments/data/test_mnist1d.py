"""MNIST-1D is the published one, made anew."""

import pytest
import torch

from experiments.data.mnist1d import MNIST1D, signals


def test_the_signals_are_those_of_the_published_package():
    x, labels = signals()
    # The first and the last of make_dataset() of mnist1d 0.0.2, in the order they have there.
    torch.testing.assert_close(
        x[0, :4], torch.tensor([-0.33200567, -0.47191037, -0.77869708, -1.00974083])
    )
    torch.testing.assert_close(x[-1, -3:], torch.tensor([0.65987565, 0.87773435, 1.19315184]))
    assert labels[:8].tolist() == [2, 6, 4, 5, 6, 6, 6, 0]
    assert labels[-5:].tolist() == [2, 5, 9, 6, 4]
    assert torch.bincount(labels).tolist() == [500] * 10


def test_each_signal_is_forty_channels_of_one_pixel():
    data = MNIST1D(batch_size=100)
    data.setup()
    x, labels = next(iter(data.test_dataloader()))
    assert x.shape == (100, 40, 1, 1)
    assert torch.equal(x[:, :, 0, 0], signals()[0][4000:4100])
    assert torch.equal(labels, signals()[1][4000:4100])
    assert len(data.train_indices) == 3500


@pytest.mark.parametrize("option", [{"augment": True}, {"normalise": "unit"}])
def test_it_takes_no_augmentation(option):
    with pytest.raises(ValueError, match="random already"):
        MNIST1D(**option)
