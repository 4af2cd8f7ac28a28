import pytest
import torch

from experiments.data._split import carve


def labels() -> torch.Tensor:
    return torch.arange(1000) % 7 * (torch.arange(1000) % 3 > 0)  # uneven classes


def test_parts_are_disjoint_and_complete():
    rest, taken = carve(labels(), 130, seed=0)
    assert (len(rest), len(taken)) == (870, 130)
    assert torch.equal(torch.cat([rest, taken]).sort().values, torch.arange(1000))


def test_each_class_gives_its_share_to_within_one_image():
    _, taken = carve(labels(), 130, seed=3)
    share = labels().bincount() * 0.13
    assert ((labels()[taken].bincount(minlength=7) - share).abs() <= 1).all()


def test_the_seed_and_nothing_else_decides():
    first = carve(labels(), 130, seed=0)
    torch.rand(5)
    again, other = carve(labels(), 130, seed=0), carve(labels(), 130, seed=1)
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])
    assert not torch.equal(first[1], other[1])


def test_what_remains_is_shuffled_so_that_its_first_images_are_a_fair_sample():
    by_class = torch.arange(10).repeat_interleave(100)
    rest, _ = carve(by_class, 0, seed=0)
    assert by_class[rest[:200]].bincount(minlength=10).min() >= 8


def test_none_taken_leaves_all():
    rest, taken = carve(labels(), 0, seed=0)
    assert (len(rest), len(taken)) == (1000, 0)


@pytest.mark.parametrize("size", [-1, 1000, 1001])
def test_an_image_to_train_on_must_remain(size):
    with pytest.raises(ValueError, match=f"cannot take {size} of 1000"):
        carve(labels(), size, seed=0)
