"""The published files, where the environment variable LOWBIT_DATA names their folder."""

import os

import pytest

from experiments.data._errors import DataNotFoundError
from experiments.data.cifar10 import CIFAR10
from experiments.data.cifar100 import CIFAR100
from experiments.data.fashion_mnist import FashionMNIST
from experiments.data.mnist import MNIST

pytestmark = pytest.mark.skipif(
    "LOWBIT_DATA" not in os.environ, reason="LOWBIT_DATA does not name a folder of data sets"
)
# Images per class of the training set; None: not all equal.
EACH = {MNIST: None, FashionMNIST: 6000, CIFAR10: 5000, CIFAR100: 500}


@pytest.fixture(scope="module", params=EACH, ids=lambda cls: cls.__name__)
def data(request):
    data = request.param(root=os.environ["LOWBIT_DATA"], download=False)
    try:
        data.check()
    except DataNotFoundError as absent:
        pytest.skip(str(absent).splitlines()[0])
    data.setup()
    return data


def test_sizes(data):
    (images, labels), (test_images, test_labels) = data._train, data._test
    shape = (data.in_channels, data.image_size, data.image_size)
    assert images.shape[1:] == test_images.shape[1:] == shape
    assert len(labels) == (60000 if isinstance(data, MNIST) else 50000)
    assert len(test_labels) == 10000
    counts = labels.bincount(minlength=data.num_classes)
    assert len(counts) == data.num_classes
    each = EACH[type(data)]
    assert each is None or (counts == each).all()


def test_the_constants_are_those_of_the_training_set(data):
    pixels = data._train[0].float() / 255
    assert pixels.mean((0, 2, 3)).tolist() == pytest.approx(data.mean, abs=6e-5)
    assert pixels.std((0, 2, 3), correction=0).tolist() == pytest.approx(data.std, abs=6e-5)
