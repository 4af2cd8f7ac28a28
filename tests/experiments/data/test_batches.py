import copy

import pytest
import torch

from experiments.data._augment import CropFlip
from experiments.data._batches import Batches
from experiments.data._normalise import Normalise
from experiments.data._shares import Shares

IMAGES = torch.arange(50, dtype=torch.uint8)[:, None, None, None].expand(50, 1, 4, 4).contiguous()
LABELS = torch.arange(50)
INDICES = torch.arange(10, 50)


def loader(seed=0, shuffle=True, augment=None, batch_size=8, training=True, **place):
    return Batches(
        IMAGES,
        LABELS,
        INDICES,
        Shares(len(INDICES), batch_size, training, **place),
        Normalise("unit", (0.5,), (0.5,)),
        augment,
        seed,
        shuffle,
    )


def labels_of(batches, epoch):
    batches.set_epoch(epoch)
    return torch.cat([labels for _, labels in batches]).tolist()


def test_an_epoch_is_a_permutation_of_the_chosen_images_with_their_labels():
    batches = loader()
    assert len(list(batches)) == len(batches) == 5
    assert sorted(labels_of(batches, 0)) == INDICES.tolist()
    for images, labels in batches:
        assert images.shape == (8, 1, 4, 4)
        assert torch.equal((images[:, 0, 0, 0] * 255).round().long(), labels)


def test_an_epoch_has_the_same_order_whatever_ran_before():
    straight = loader()
    first = [labels_of(straight, epoch) for epoch in range(4)]
    torch.rand(3)
    assert labels_of(loader(), 3) == first[3]


def test_epochs_and_seeds_differ():
    orders = {tuple(labels_of(loader(seed), epoch)) for seed in range(3) for epoch in range(3)}
    assert len(orders) == 9


def test_augmentation_is_a_function_of_seed_and_epoch():
    augment = CropFlip(padding=1, flip=True)
    first, again, other = (loader(augment=augment) for _ in range(3))
    other.set_epoch(1)
    first, again, other = (torch.cat([x for x, _ in b]) for b in (first, again, other))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_without_shuffling_images_come_in_order():
    assert labels_of(loader(shuffle=False), 5) == INDICES.tolist()


@pytest.mark.parametrize("augment", [None, CropFlip(padding=1, flip=True)])
def test_two_processes_see_together_what_one_sees(augment):
    one = loader(augment=augment)
    two = [loader(augment=augment, batch_size=4, rank=r, world_size=2) for r in range(2)]
    for whole, left, right in zip(one, *two, strict=True):
        assert torch.equal(whole[0], torch.cat([left[0], right[0]]))
        assert torch.equal(whole[1], torch.cat([left[1], right[1]]))


def test_a_run_resumed_in_an_epoch_goes_on_with_the_next_batch():
    running = loader()
    running.set_epoch(2)
    iterator = iter(running)
    seen = [next(iterator)[1] for _ in range(2)]
    state = copy.deepcopy(running.state_dict())
    rest = [labels for _, labels in iterator]

    resumed = loader()
    resumed.load_state_dict(state)
    resumed.set_epoch(2)
    assert [x.tolist() for _, x in resumed] == [x.tolist() for x in rest]
    assert [x.tolist() for _, x in resumed] == [x.tolist() for x in seen + rest]


def test_a_run_resumed_between_epochs_begins_the_next():
    finished = loader()
    labels_of(finished, 2)
    resumed = loader()
    resumed.load_state_dict(finished.state_dict())
    assert labels_of(resumed, 3) == labels_of(loader(), 3)


def test_a_checkpoint_between_two_epochs_knows_that_the_next_has_not_begun():
    batches = loader()
    labels_of(batches, 2)
    batches.set_epoch(3)
    assert batches.state_dict() == {"epoch": 3, "done": 0}


def test_the_epoch_may_be_told_after_the_iterator_is_made():
    batches = loader()
    iterator = iter(batches)
    batches.sampler.set_epoch(7)
    assert torch.cat([x for _, x in iterator]).tolist() == labels_of(loader(), 7)


def test_an_abandoned_epoch_starts_over():
    batches = loader(shuffle=False, training=False)
    next(iter(batches))
    assert labels_of(batches, 0) == INDICES.tolist()


@pytest.mark.parametrize("at_once", [2, 3, 100])
@pytest.mark.parametrize("place", [{}, {"rank": 1, "world_size": 2}])
def test_batches_made_together_are_those_made_one_by_one(at_once, place):
    options = {"augment": CropFlip(padding=1, flip=True), "drop_last": False, "batch_size": 7}
    single, together = loader(**options, **place), loader(**options, **place)
    together.at_once = at_once
    for start in (0, 2):
        made = list(together.batches(1, start))
        for (x, y), (u, v) in zip(single.batches(1, start), made, strict=True):
            assert torch.equal(x, u)
            assert torch.equal(y, v)


def test_batches_made_together_fit_in_memory(monkeypatch):
    class OnGPU(torch.Tensor):
        is_cuda = True

    def at_once(side, batch_size):
        images = torch.zeros(1, 3, side, side, dtype=torch.uint8).as_subclass(OnGPU)
        shares = Shares(2000, batch_size, training=True)
        normalise = Normalise("unit", (0.5,) * 3, (0.5,) * 3)
        return Batches(images, LABELS, INDICES, shares, normalise).at_once

    assert loader().at_once == 1
    assert at_once(32, 128) == 16
    assert at_once(224, 128) == 3
    assert at_once(224, 1000) == 1


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_batches_are_the_same_on_the_device():
    augment = CropFlip(padding=1, flip=True)
    there = Batches(
        IMAGES.cuda(),
        LABELS.cuda(),
        INDICES,
        Shares(len(INDICES), 8, training=True),
        Normalise("unit", (0.5,), (0.5,)),
        augment,
        shuffle=True,
    )
    for (x, y), (u, v) in zip(loader(augment=augment), there, strict=True):
        assert u.device.type == v.device.type == "cuda"
        assert torch.equal(x, u.cpu())
        assert torch.equal(y, v.cpu())
