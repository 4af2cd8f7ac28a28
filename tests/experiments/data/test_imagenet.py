"""ImageNet's data module on a folder of eight tiny images of two classes."""

import numpy as np
import pytest
import torch
from PIL import Image

from experiments.data._errors import DataError, DataNotFoundError
from experiments.data.imagenet import DEVIATIONS, DIRECTIONS, ImageNet, Lighting


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    random = np.random.default_rng(0)
    for split, count in (("train", 8), ("val", 3)):
        for wnid in ("n01", "n02"):
            folder = root / "imagenet" / split / wnid
            folder.mkdir(parents=True)
            for i in range(count):
                pixels = random.integers(0, 256, (40, 50, 3), np.uint8)
                Image.fromarray(pixels).save(folder / f"{i}.JPEG")
    return root


def made(root, **options):
    options = {
        "num_classes": 2,
        "image_size": 32,
        "batch_size": 4,
        "val_size": 4,
        "num_workers": 0,
        **options,
    }
    data = ImageNet(root=root, **options)
    data.prepare_data()
    data.setup()
    return data


def images_of(loader, epoch=0):
    loader.set_epoch(epoch)
    return torch.cat([images for images, _ in loader])


def test_splits(root):
    data = made(root)
    assert [len(x) for x in (data.train_dataloader(), data.val_dataloader())] == [3, 1]
    assert [len(y) for _, y in data.test_dataloader()] == [4, 2]
    together = torch.cat([data.train_indices, data.val_indices])
    assert torch.equal(together.sort().values, torch.arange(16))
    images, labels = next(iter(data.train_dataloader()))
    assert images.shape == (4, 3, 32, 32)
    assert images.dtype == torch.float32
    assert labels.tolist() == [
        data._train.targets[i] for i in data.train_indices[data.train_dataloader().order(0)[0][:4]]
    ]


def test_batches_do_not_depend_on_the_global_random_numbers_nor_use_them(root):
    data = made(root)
    first = images_of(data.train_dataloader())
    before = torch.random.get_rng_state()
    assert torch.equal(first, images_of(made(root).train_dataloader()))
    assert torch.equal(before, torch.random.get_rng_state())


def test_an_image_is_augmented_anew_in_each_epoch_and_for_each_seed(root):
    one, other = (made(root, seed=seed).train_dataloader()._loader.dataset for seed in (0, 1))
    assert torch.equal(one[0, 5][0], one[0, 5][0])
    assert not torch.equal(one[0, 5][0], one[1, 5][0])
    assert not torch.equal(one[0, 5][0], other[0, 5][0])


def test_worker_processes_read_the_same_batches_in_every_epoch(root):
    here, there = made(root).train_dataloader(), made(root, num_workers=1).train_dataloader()
    for epoch in range(2):
        assert torch.equal(images_of(here, epoch), images_of(there, epoch))


def test_evaluation_cuts_out_the_centre(root):
    from torchvision.transforms import functional as F

    data = made(root, normalise="unit")
    picture = Image.open(data._test.samples[0][0])
    expected = F.to_tensor(F.center_crop(F.resize(picture, 37), 32))
    torch.testing.assert_close(images_of(data.test_dataloader())[0], expected)


def test_a_resumed_epoch_goes_on_with_the_next_batch(root):
    whole = made(root).train_dataloader()
    batches = [labels for _, labels in whole]
    resumed = made(root).train_dataloader()
    resumed.load_state_dict({"epoch": 0, "done": 1})
    assert [y.tolist() for _, y in resumed] == [y.tolist() for y in batches[1:]]


def test_absent_folders_end_in_one_message(tmp_path):
    (tmp_path / "imagenet" / "val" / "n01").mkdir(parents=True)
    with pytest.raises(DataNotFoundError) as caught:
        ImageNet(root=tmp_path).prepare_data()
    message = str(caught.value)
    assert message.startswith(f"ImageNet was not found in {tmp_path / 'imagenet'}")
    assert "train/<class>/*.JPEG (missing)\n" in message
    assert "val/<class>/*.JPEG\n" in message


def test_another_number_of_classes_is_an_error(root):
    with pytest.raises(DataError, match="train has 2 class folders, but num_classes is 1000"):
        made(root, num_classes=1000)


def test_lighting_adds_one_colour_to_all_pixels_of_an_image(root):
    plain, lit = (images_of(made(root, lighting=d).train_dataloader()) for d in (0.0, 0.1))
    colour = (lit - plain).flatten(2)
    torch.testing.assert_close(colour, colour[..., :1].expand_as(colour), rtol=0, atol=1e-5)
    assert (colour[:, :, 0].std(0) > 0).all()
    plain, lit = (images_of(made(root, lighting=d).test_dataloader()) for d in (0.0, 0.1))
    assert torch.equal(plain, lit)
    with pytest.raises(DataError, match="lighting is at least 0"):
        made(root, lighting=-1)


def test_lighting_has_the_covariance_of_the_principal_components():
    torch.manual_seed(0)
    drawn = torch.stack([Lighting(0.1)(torch.zeros(3, 1, 1)) for _ in range(20_000)])[..., 0, 0]
    expected = DIRECTIONS @ torch.diag((25.5 * DEVIATIONS) ** 2) @ DIRECTIONS.T
    torch.testing.assert_close(drawn.T.cov(), expected, rtol=0.05, atol=0.05)
