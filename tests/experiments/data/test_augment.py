import pytest
import torch

from experiments.data._augment import CropFlip
from experiments.data._seeds import generator_of
from experiments.data.imagenet import ImageNet
from experiments.data.synthetic import Synthetic


def mirrored(place, size):
    """A place outside 0 ... size - 1, mirrored at the pixel on the edge."""
    return -place if place < 0 else min(place, 2 * size - 2 - place)


def slow(image, row, column, mirror, padding, border="zeros"):
    """One image, pixel by pixel."""
    channels, height, width = image.shape
    out = torch.zeros_like(image)
    for c in range(channels):
        for y in range(height):
            for x in range(width):
                from_y = y + row - padding
                from_x = (width - 1 - x if mirror else x) + column - padding
                if border == "reflect":
                    from_y, from_x = mirrored(from_y, height), mirrored(from_x, width)
                if 0 <= from_y < height and 0 <= from_x < width:
                    out[c, y, x] = image[c, from_y, from_x]
    return out


@pytest.mark.parametrize("border", ["zeros", "reflect"])
@pytest.mark.parametrize(("padding", "flip"), [(0, True), (1, False), (2, True), (4, True)])
def test_a_batch_equals_its_images_one_by_one(padding, flip, border):
    images = torch.randint(256, (20, 3, 6, 5), dtype=torch.uint8)
    augment = CropFlip(padding, flip, border)
    draws = augment.draw(20, generator_of(0))
    expected = [
        slow(image, *draw, padding, border)
        for image, draw in zip(images, draws.tolist(), strict=True)
    ]
    assert torch.equal(augment(images, draws), torch.stack(expected))


def test_every_place_is_drawn_equally_often_and_half_are_mirrored():
    draws = CropFlip(padding=1, flip=True).draw(18000, generator_of(0))
    counts = (draws[:, 0] * 6 + draws[:, 1] * 2 + draws[:, 2]).bincount(minlength=18)
    assert len(counts) == 18
    assert (counts - 1000).abs().max() < 130  # 4 standard deviations


def test_without_flip_nothing_is_mirrored():
    assert CropFlip(padding=2, flip=False).draw(100, generator_of(0))[:, 2].sum() == 0


def test_the_images_are_not_changed_in_place():
    images = torch.randint(256, (4, 1, 8, 8), dtype=torch.uint8)
    before = images.clone()
    augment = CropFlip(1, True)
    augment(images, augment.draw(4, generator_of(0)))
    assert torch.equal(images, before)


def test_alternating_images_are_seen_either_way_in_turn():
    augment = CropFlip(padding=1, flip=True, alternating=True)
    images = torch.randperm(200)[:90]
    epochs = []
    for epoch in range(4):
        draws = augment.draw(90, generator_of(7, epoch))
        turned = augment.alternate(draws, images, 200, seed=7, epoch=epoch)
        assert torch.equal(turned[:, :2], draws[:, :2])
        epochs.append(turned[:, 2])
    assert 25 < epochs[0].sum() < 65
    assert torch.equal(epochs[1], 1 - epochs[0])
    assert torch.equal(epochs[2], epochs[0])
    assert torch.equal(epochs[3], epochs[1])
    other = augment.alternate(draws, images, 200, seed=8, epoch=3)[:, 2]
    assert not torch.equal(other, epochs[3])


def test_only_alternating_images_do():
    augment = CropFlip(padding=1, flip=True)
    draws = augment.draw(20, generator_of(0))
    assert augment.alternate(draws, torch.arange(20), 20, seed=0, epoch=1) is draws


def test_a_data_module_takes_the_augmentation_of_airbench_by_its_name():
    """Images of one row of distinct pixels: which way they are seen can be read from them."""
    data = Synthetic(augment="airbench", train_size=64, val_size=8, batch_size=56)
    data.setup("fit")
    batches = data.train_dataloader()
    ramp = torch.arange(32, dtype=torch.uint8).expand_as(batches.images)
    batches.images = (8 * ramp).contiguous()
    ways = {}
    for epoch in range(3):
        batches.set_epoch(epoch)
        order, _ = batches.order(epoch)
        ((images, _),) = batches
        mirrored = (images[:, 0, 0].diff(dim=1).sum(1) < 0)[order.argsort()]
        ways[epoch] = mirrored
    assert 10 < ways[0].sum() < 46
    assert torch.equal(ways[1], ~ways[0])
    assert torch.equal(ways[2], ways[0])


def test_images_too_small_to_be_mirrored_at_their_borders_are_refused():
    data = Synthetic(augment="airbench", image_size=2, train_size=64, val_size=8)
    data.setup("fit")
    with pytest.raises(ValueError, match="mirrors 2 pixels at each border; images of 2 pixels"):
        data.train_dataloader()


def test_other_names_of_augmentations_are_refused():
    with pytest.raises(ValueError, match="true or false or airbench; got 'randaugment'"):
        Synthetic(augment="randaugment")
    with pytest.raises(ValueError, match="augment of ImageNet is true or false; got 'airbench'"):
        ImageNet(augment="airbench")
