import pytest
import torch

from experiments.data._augment import CropFlip
from experiments.data._seeds import generator_of


def slow(image, row, column, mirror, padding):
    """One image, pixel by pixel."""
    channels, height, width = image.shape
    out = torch.zeros_like(image)
    for c in range(channels):
        for y in range(height):
            for x in range(width):
                from_y = y + row - padding
                from_x = (width - 1 - x if mirror else x) + column - padding
                if 0 <= from_y < height and 0 <= from_x < width:
                    out[c, y, x] = image[c, from_y, from_x]
    return out


@pytest.mark.parametrize(("padding", "flip"), [(0, True), (1, False), (2, True), (4, True)])
def test_a_batch_equals_its_images_one_by_one(padding, flip):
    images = torch.randint(256, (20, 3, 6, 5), dtype=torch.uint8)
    augment = CropFlip(padding, flip)
    draws = augment.draw(20, generator_of(0))
    expected = [
        slow(image, *draw, padding) for image, draw in zip(images, draws.tolist(), strict=True)
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
