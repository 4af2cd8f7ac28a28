"""Data sets published as files, on tiny files of the same formats."""

import hashlib
import pickle
import socket
from urllib.error import URLError

import numpy as np
import pytest
import torch
import torchvision

from experiments.data._errors import DataCorruptError, DataError, DataNotFoundError
from experiments.data.cifar10 import CIFAR10
from experiments.data.cifar100 import CIFAR100
from experiments.data.fashion_mnist import FashionMNIST
from experiments.data.mnist import MNIST

ALL = [MNIST, FashionMNIST, CIFAR10, CIFAR100]
TRAIN, TEST = 40, 20  # images


def idx(array):
    """An idx file: two zero bytes, type code, number of axes, sizes, values."""
    header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
    return header + array.astype(np.uint8).tobytes()


def contents(cls):
    """Tiny files of a data set -> (file -> content, training and test images and labels)."""
    random = np.random.default_rng(0)
    shape = (cls.in_channels, cls.image_size, cls.image_size)
    images = random.integers(0, 256, (TRAIN + TEST, *shape), np.uint8)
    labels = np.arange(TRAIN + TEST) % cls.num_classes
    parts = {True: (images[:TRAIN], labels[:TRAIN]), False: (images[TRAIN:], labels[TRAIN:])}
    files = {}
    if issubclass(cls, MNIST):
        for train, split in ((True, "train"), (False, "t10k")):
            files[f"{split}-images-idx3-ubyte"] = idx(parts[train][0][:, 0])
            files[f"{split}-labels-idx1-ubyte"] = idx(parts[train][1])
    else:
        names = [name for name in cls.files if name != cls.test_file]
        pieces = [
            (n, i, y)
            for n, i, y in zip(
                names,
                np.split(parts[True][0], len(names)),
                np.split(parts[True][1], len(names)),
                strict=True,
            )
        ]
        for name, x, y in [*pieces, (cls.test_file, *parts[False])]:
            files[name] = pickle.dumps({"data": x.reshape(len(x), -1), cls.label_key: y.tolist()})
    return files, parts


@pytest.fixture
def on_disk(tmp_path, monkeypatch):
    """Write tiny files of a data set, and accept their md5s as a second version."""

    def write(cls):
        files, parts = contents(cls)
        folder = tmp_path / cls.folder
        folder.mkdir(parents=True)
        for name, content in files.items():
            (folder / name).write_bytes(content)
        md5s = {n: ("0" * 32, hashlib.md5(c).hexdigest()) for n, c in files.items()}
        assert set(md5s) == set(cls.files)
        monkeypatch.setattr(cls, "files", md5s)
        return tmp_path, parts

    return write


@pytest.mark.parametrize("cls", ALL)
def test_images_and_labels_come_out_as_they_are_on_disk(cls, on_disk):
    root, parts = on_disk(cls)
    data = cls(root=root, download=False, val_size=10)
    data.prepare_data()
    for train in (True, False):
        images, labels = data.load(train)
        assert (images.dtype, labels.dtype) == (torch.uint8, torch.int64)
        assert np.array_equal(images.numpy(), parts[train][0])
        assert labels.tolist() == parts[train][1].tolist()


@pytest.mark.parametrize("cls", ALL)
def test_validation_comes_out_of_the_training_set_and_the_test_set_is_whole(cls, on_disk):
    root, parts = on_disk(cls)
    data = cls(root=root, val_size=10, batch_size=5, augment=False, normalise="unit")
    data.setup()

    def pixels(loader):
        images = torch.cat([images for images, _ in loader])
        return sorted((images * 255).round().to(torch.uint8).flatten(1).tolist())

    train, val = pixels(data.train_dataloader()), pixels(data.val_dataloader())
    assert (len(train), len(val)) == (TRAIN - 10, 10)
    assert sorted(train + val) == sorted(parts[True][0].reshape(TRAIN, -1).tolist())
    assert pixels(data.test_dataloader()) == sorted(parts[False][0].reshape(TEST, -1).tolist())


@pytest.mark.parametrize("cls", ALL)
def test_absent_files_end_in_one_message_with_folder_files_and_way_out(cls, tmp_path):
    data = cls(root=tmp_path / "none", download=False)
    for attempt in (data.check, data.prepare_data):
        with pytest.raises(DataNotFoundError) as caught:
            attempt()
        message = str(caught.value)
        assert message.startswith(
            f"{cls.__name__} was not found in {tmp_path / 'none' / cls.folder}"
        )
        assert all(f"{file} (missing)" in message for file in cls.files)
        assert "data.download=true" in message
        assert "LOWBIT_DATA" in message


def test_only_what_is_absent_is_called_missing(on_disk):
    root, _ = on_disk(CIFAR10)
    (root / CIFAR10.folder / "data_batch_3").unlink()
    with pytest.raises(DataNotFoundError, match=r"data_batch_3 \(missing\)") as caught:
        CIFAR10(root=root, download=False).check()
    assert str(caught.value).count("(missing)") == 1


@pytest.mark.parametrize("error", [URLError("no network"), RuntimeError("no\n network")])
def test_a_failed_download_says_why(error, tmp_path, monkeypatch):
    seen = {}

    def failing(root, download):
        seen.update(root=root, download=download, timeout=socket.getdefaulttimeout())
        raise error

    monkeypatch.setattr(torchvision.datasets, "MNIST", failing)
    with pytest.raises(DataNotFoundError, match=r"The download failed .*no network") as caught:
        MNIST(root=tmp_path).prepare_data()
    assert caught.value.__cause__ is error
    assert seen == {"root": str(tmp_path), "download": True, "timeout": MNIST.patience}
    assert socket.getdefaulttimeout() is None


def test_nothing_is_downloaded_where_the_files_are(on_disk, monkeypatch):
    root, _ = on_disk(MNIST)
    monkeypatch.delattr(torchvision.datasets, "MNIST")
    MNIST(root=root, download=True).prepare_data()


@pytest.mark.parametrize("cls", ALL)
def test_a_changed_file_is_refused_by_name_and_not_parsed(cls, on_disk, monkeypatch):
    root, _ = on_disk(cls)
    file = next(iter(cls.files))
    path = root / cls.folder / file
    content = bytearray(path.read_bytes())
    content[-20] ^= 1
    path.write_bytes(content)

    def parse(*args, **kwargs):
        raise AssertionError("a file that was not verified was parsed")

    monkeypatch.setattr(pickle, "loads", parse)
    with pytest.raises(DataCorruptError, match=f"{file} is not the published file") as caught:
        cls(root=root, val_size=10).setup("fit")
    assert hashlib.md5(content).hexdigest() in str(caught.value)
    assert isinstance(caught.value, DataError)


def test_cifar10_accepts_the_published_batches_and_the_rebuilt_ones_and_no_others():
    published = dict(
        torchvision.datasets.CIFAR10.train_list + torchvision.datasets.CIFAR10.test_list
    )
    assert {file: md5s[0] for file, md5s in CIFAR10.files.items()} == published
    assert all(len(md5s) == 2 for md5s in CIFAR10.files.values())


def test_cifar100_accepts_the_published_batches_only():
    published = torchvision.datasets.CIFAR100.train_list + torchvision.datasets.CIFAR100.test_list
    assert {file: list(md5s) for file, md5s in CIFAR100.files.items()} == {
        file: [md5] for file, md5 in published
    }


def test_setup_for_fitting_does_not_open_the_test_set(on_disk, monkeypatch):
    root, _ = on_disk(CIFAR10)
    (root / CIFAR10.folder / "test_batch").write_bytes(b"not to be read")
    data = CIFAR10(root=root, val_size=10, batch_size=5)
    data.setup("fit")
    assert len(data.val_dataloader()) == 2
