from itertools import chain

import pytest

from experiments.data._shares import Shares


def steps(size, batch_size, world_size=1, **options):
    """Positions that each process takes at each step: [step][process] -> list."""
    parts = [
        Shares(size, batch_size, rank=r, world_size=world_size, **options)
        for r in range(world_size)
    ]
    assert len({len(p) for p in parts}) == 1
    return [[list(range(size))[p.part(k)] for p in parts] for k in range(len(parts[0]))]


@pytest.mark.parametrize("drop_last", [True, False])
@pytest.mark.parametrize("size", [24, 25, 29, 31])
@pytest.mark.parametrize("world_size", [2, 4])
def test_processes_together_see_at_each_training_step_what_one_sees(size, world_size, drop_last):
    one = steps(size, 8, training=True, drop_last=drop_last)
    many = steps(size, 8 // world_size, world_size, training=True, drop_last=drop_last)
    for k, parts in enumerate(many):
        together = list(chain(*parts))
        assert len({len(p) for p in parts}) == 1  # DDP averages gradients by process
        assert together == one[k][0][: len(together)]
        assert len(together) > len(one[k][0]) - world_size


def test_drop_last_drops_the_rest_and_only_that():
    assert [len(s[0]) for s in steps(29, 8, training=True, drop_last=True)] == [8, 8, 8]
    assert [len(s[0]) for s in steps(29, 8, training=True, drop_last=False)] == [8, 8, 8, 5]


@pytest.mark.parametrize("world_size", [1, 2, 3, 4])
@pytest.mark.parametrize("batch_size", [1, 2, 5])
@pytest.mark.parametrize("size", [4, 7, 12, 13, 41])
def test_evaluation_sees_every_image_once_on_equally_many_steps(size, batch_size, world_size):
    parts = steps(size, batch_size, world_size, training=False)
    assert list(chain(*chain(*parts))) == list(range(size))
    lengths = [len(p) for step in parts for p in step]
    assert min(lengths) >= 1
    assert max(lengths) <= batch_size + (world_size > 1)


def test_no_step_at_all_is_an_error_that_names_the_numbers():
    with pytest.raises(ValueError, match=r"100 images make no step of 1 x 128 .*drop_last=false"):
        Shares(100, 128, training=True)
    with pytest.raises(ValueError, match="3 images make no step of 4 x 2"):
        Shares(3, 2, training=False, world_size=4)


@pytest.mark.parametrize(("rank", "world_size"), [(2, 2), (-1, 2)])
def test_a_process_outside_the_world_is_an_error(rank, world_size):
    with pytest.raises(ValueError, match=f"no process {rank} among {world_size}"):
        Shares(10, 1, training=True, rank=rank, world_size=world_size)


def test_a_batch_of_no_images_is_an_error():
    with pytest.raises(ValueError, match="batch_size must be at least 1; got 0"):
        Shares(10, 0, training=True)
