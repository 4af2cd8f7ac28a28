"""What holds for the data modules whatever the data, on those that need no files."""

from types import SimpleNamespace

import pytest
import torch

from experiments.data.digits import Digits
from experiments.data.synthetic import Synthetic

SMALL = {"train_size": 100, "test_size": 30, "val_size": 20, "batch_size": 8, "image_size": 8}


def made(cls, **options):
    data = cls(**options)
    data.prepare_data()
    data.setup()
    return data


def test_digits_are_all_there_once():
    from sklearn.datasets import load_digits

    data = made(Digits, batch_size=1, normalise="unit")
    parts = [data.train_dataloader(), data.val_dataloader(), data.test_dataloader()]
    assert [len(part) for part in parts] == [1077, 180, 540]
    images = torch.cat([images for part in parts for images, _ in part])
    found = sorted((images * 16).round().long().flatten(1).tolist())
    assert found == sorted(torch.tensor(load_digits().data).long().tolist())


def test_the_test_set_of_digits_does_not_move():
    one, other = made(Digits), made(Digits, split_seed=5, seed=5, val_size=300)
    for (x, y), (u, v) in zip(one.test_dataloader(), other.test_dataloader(), strict=True):
        assert torch.equal(x, u)
        assert torch.equal(y, v)


def test_the_constants_of_digits_are_those_of_its_training_set():
    images, _ = Digits().load(train=True)
    pixels = images.double() / 16
    assert pixels.mean().item() == pytest.approx(Digits.mean[0], abs=5e-5)
    assert pixels.std(correction=0).item() == pytest.approx(Digits.std[0], abs=5e-5)


def test_the_split_moves_with_its_seed_and_not_with_the_run_s():
    base = made(Synthetic, **SMALL).val_indices
    assert torch.equal(base, made(Synthetic, **SMALL, seed=9).val_indices)
    assert not torch.equal(base, made(Synthetic, **SMALL, split_seed=9).val_indices)


def test_limit_shortens_training_only():
    data = made(Synthetic, **SMALL, limit=16)
    sizes = [
        sum(len(y) for _, y in loader)
        for loader in (data.train_dataloader(), data.val_dataloader(), data.test_dataloader())
    ]
    assert sizes == [16, 20, 30]
    assert set(data.train_indices.tolist()) <= set(made(Synthetic, **SMALL).train_indices.tolist())


def test_without_validation_images_there_is_no_validation_loader():
    data = made(Synthetic, **{**SMALL, "val_size": 0})
    assert data.val_dataloader() == []
    assert len(data.train_indices) == 100


def test_evaluation_is_neither_shuffled_nor_augmented():
    data = made(Synthetic, **SMALL, augment=True)
    first = torch.cat([x for x, _ in data.test_dataloader()])
    loader = data.test_dataloader()
    loader.set_epoch(3)
    assert torch.equal(first, torch.cat([x for x, _ in loader]))


def test_calibration_has_the_first_training_images_as_evaluation_makes_them():
    data = made(Synthetic, **SMALL, augment=True)
    found = list(data.calibration_dataloader(20))
    assert [len(y) for _, y in found] == [8, 8, 4]
    chosen = data.train_indices[:20]
    _, labels = data.load(train=True)
    assert torch.equal(torch.cat([y for _, y in found]), labels[chosen])
    plain = made(Synthetic, **SMALL, augment=False)
    plain.train_indices = chosen
    loader = plain.train_dataloader()
    loader.shuffle = False
    assert torch.equal(found[0][0], next(iter(loader))[0])


def test_augment_changes_the_training_images_and_keeps_the_order():
    plain, augmented = (made(Synthetic, **SMALL, augment=a) for a in (False, True))
    (x, y), (u, v) = (next(iter(d.train_dataloader())) for d in (plain, augmented))
    assert torch.equal(y, v)
    assert not torch.equal(x, u)


def test_synthetic_classes_can_be_told_apart():
    data = made(Synthetic, **SMALL, signal=0.6)
    (train, labels), (test, truth) = data._train, data._test
    distance = torch.cdist(test.flatten(1).float(), train.flatten(1).float())
    assert (labels[distance.argmin(1)] == truth).float().mean() > 0.9


def test_synthetic_images_of_any_shape():
    data = made(
        Synthetic,
        num_classes=5,
        in_channels=2,
        image_size=33,
        train_size=20,
        val_size=4,
        batch_size=4,
    )
    images, labels = next(iter(data.train_dataloader()))
    assert images.shape == (4, 2, 33, 33)
    assert labels.max() < 5
    assert (data.num_classes, data.in_channels, data.image_size) == (5, 2, 33)


@pytest.mark.parametrize(
    ("option", "value", "rule"),
    [
        ("batch_size", 0, "batch_size of Digits is a whole number of at least 1; got 0"),
        ("val_size", -1, "val_size of Digits is a whole number of at least 0; got -1"),
        ("limit", 0, "limit of Digits is a whole number of at least 1; got 0"),
        ("seed", -3, "seed of Digits is a whole number of at least 0; got -3"),
        ("normalise", "none", "takes one of standard, signed, unit; got 'none'"),
    ],
)
def test_an_impossible_option_is_refused_at_once(option, value, rule):
    with pytest.raises(ValueError, match=rule):
        Digits(**{option: value})


def test_loaders_before_setup_say_what_is_missing():
    with pytest.raises(RuntimeError, match=r"call setup\(\) of Digits"):
        Digits().test_dataloader()


def test_the_trainer_says_which_share_is_this_process_s():
    data = made(Synthetic, **SMALL)
    data.trainer = SimpleNamespace(global_rank=1, world_size=2)
    shares = data.shares(100, training=True)
    assert (shares.rank, shares.world_size) == (1, 2)
    assert shares.part(0) == slice(8, 16)
