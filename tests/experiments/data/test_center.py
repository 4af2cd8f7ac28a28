"""The mean image is subtracted: that of the training images, or of each split."""

import pytest
import torch

from experiments.data.synthetic import Synthetic

OPTIONS = {"image_size": 8, "train_size": 96, "val_size": 32, "test_size": 48, "batch_size": 16}


def images(loader):
    return torch.cat([x for x, _ in loader])


def made(**options):
    data = Synthetic(**OPTIONS, drop_last=False, **options)
    data.setup()
    return data


@pytest.mark.parametrize("normalise", ["standard", "unit"])
def test_training_images_have_mean_zero_in_every_pixel(normalise):
    data = made(center="train", normalise=normalise)
    x = images(data.train_dataloader())
    torch.testing.assert_close(x.mean(0), torch.zeros(3, 8, 8), atol=1e-5, rtol=0)
    plain = images(made(normalise=normalise).train_dataloader())
    torch.testing.assert_close(x, plain - plain.mean(0), atol=1e-5, rtol=1e-5)


def test_by_default_tests_are_centred_by_the_training_images():
    data, plain = made(center="train"), made()
    mean = images(plain.train_dataloader()).mean(0)
    for name in ("val_dataloader", "test_dataloader"):
        expected = images(getattr(plain, name)()) - mean
        torch.testing.assert_close(images(getattr(data, name)()), expected, atol=1e-5, rtol=1e-5)


def test_per_split_every_split_has_mean_zero():
    data = made(center="per_split")
    for name in ("train_dataloader", "val_dataloader", "test_dataloader"):
        mean = images(getattr(data, name)()).mean(0)
        torch.testing.assert_close(mean, torch.zeros(3, 8, 8), atol=1e-5, rtol=0)


def test_a_test_alone_still_knows_the_training_images():
    data = Synthetic(**OPTIONS, center="train")
    data.setup("test")
    assert torch.equal(
        images(data.test_dataloader()), images(made(center="train").test_dataloader())
    )


def test_an_unknown_center_is_refused():
    with pytest.raises(ValueError, match="center of Synthetic is train, per_split or null"):
        Synthetic(**OPTIONS, center="test")
