"""Global contrast normalisation and ZCA, against NumPy's own way to the root of a covariance."""

import numpy as np
import pytest
import torch

from experiments.data._whiten import Whiten, contrast
from experiments.data.cifar10 import CIFAR10
from experiments.data.synthetic import Synthetic
from tests.experiments.data.test_center import OPTIONS, images, made


def contrast_normalised(x):
    x = x.reshape(len(x), -1).astype(np.float64)
    x = x - x.mean(1, keepdims=True)
    return 55 * x / np.sqrt((x**2).sum(1, keepdims=True))


def whitened(train, x):
    """By singular values of the data: no covariance is made, and no eigenvalue of one."""
    t = contrast_normalised(train)
    mean = t.mean(0)
    _, spread, axes = np.linalg.svd((t - mean) / np.sqrt(len(t)), full_matrices=False)
    centred = contrast_normalised(x) - mean
    inside = centred @ axes.T
    scaled = inside / np.sqrt(spread**2 + 0.1)
    # What the training images have no variance in is divided by the root of 0.1 alone.
    return scaled @ axes + (centred - inside @ axes) / np.sqrt(0.1)


def test_every_split_is_whitened_by_the_training_images():
    data = made(whiten="zca")
    pixels, _ = data.load(train=True)
    train = pixels[data.train_indices].numpy()
    test = data.load(train=False)[0].numpy()
    parts = {
        "val_dataloader": pixels[data.val_indices].numpy(),
        "test_dataloader": test,
    }
    assert len(train) == 64
    for name, x in parts.items():
        got = images(getattr(data, name)()).flatten(1).numpy()
        np.testing.assert_allclose(got, whitened(train, x), rtol=2e-4, atol=2e-4)


def test_whitened_training_images_have_one_variance_where_there_is_much_and_no_correlation():
    x = torch.randint(256, (4000, 1, 3, 3), dtype=torch.uint8)
    y = Whiten.fit(x)(x).flatten(1).double()
    variances = torch.linalg.eigvalsh(torch.cov(y.T, correction=0))
    # GCN takes one direction away, the mean of an image; the others have 300 and more.
    assert variances[0] < 1e-6
    torch.testing.assert_close(variances[1:], torch.ones(8).double(), atol=1e-3, rtol=0)


def test_contrast_has_one_norm_and_no_mean_and_a_plain_image_is_zero():
    x = torch.randint(256, (5, 3, 4, 4), dtype=torch.uint8)
    x[2] = 77
    y = contrast(x)
    assert y.shape == (5, 48)
    assert torch.equal(y[2], torch.zeros(48))
    rest = y[torch.arange(5) != 2]
    torch.testing.assert_close(rest.norm(dim=1), torch.full((4,), 55.0))
    torch.testing.assert_close(rest.mean(1), torch.zeros(4), atol=1e-4, rtol=0)


def test_a_test_alone_is_whitened_alike():
    data = Synthetic(**OPTIONS, whiten="zca")
    data.setup("test")
    assert torch.equal(images(data.test_dataloader()), images(made(whiten="zca").test_dataloader()))


def test_it_is_kept_beside_the_data_and_read_by_the_next_run(tmp_path, monkeypatch):
    x = torch.randint(256, (40, 1, 4, 4), dtype=torch.uint8)
    first = Whiten.fit_once(x, torch.arange(30), tmp_path)
    kept = list(tmp_path.iterdir())
    assert [path.suffix for path in kept] == [".pt"]
    other = Whiten.fit_once(x, torch.arange(20), tmp_path)
    assert len(list(tmp_path.iterdir())) == 2, "other training images have a file of their own"
    assert not torch.equal(other.matrix, first.matrix)
    monkeypatch.setattr(Whiten, "fit", None)  # not computed again
    again = Whiten.fit_once(x, torch.arange(30), tmp_path)
    assert torch.equal(again(x), first(x))


def test_a_folder_that_cannot_be_written_is_said_and_no_error(tmp_path):
    x = torch.randint(256, (40, 1, 4, 4), dtype=torch.uint8)
    with pytest.warns(UserWarning, match="not kept"):
        Whiten.fit_once(x, torch.arange(30), tmp_path / "none")


def test_published_data_keep_it_in_their_folder(tmp_path):
    assert CIFAR10(root=tmp_path).cache == tmp_path / "cifar-10-batches-py"


def test_it_says_that_no_mean_and_deviation_describe_it():
    facts = Synthetic(**OPTIONS, whiten="zca").preprocessing()
    assert (facts["mean"], facts["std"]) == (None, None)


def test_wrong_words_are_refused():
    with pytest.raises(ValueError, match="whiten of Synthetic is zca or null; got 'pca'"):
        Synthetic(**OPTIONS, whiten="pca")
    with pytest.raises(ValueError, match="center is null with it; got center='train'"):
        Synthetic(**OPTIONS, whiten="zca", center="train")
