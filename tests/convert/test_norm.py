"""A frozen batch norm gives the bits of the trained one."""

import pytest
import torch
from torch import nn

from lowbit.convert._norm import FrozenNorm
from tests.convert._networks import shaken


@pytest.mark.parametrize("channels", [3, 64, 70])
@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_outputs_are_equal_bit_for_bit(channels, affine, layout):
    norm = shaken(nn.BatchNorm2d(channels, affine=affine, eps=1e-3))
    frozen = FrozenNorm.from_trained(norm)
    for size in ((1, 1), (7, 7), (33, 31)):
        x = 50 * torch.randn(2, channels, *size, generator=torch.Generator().manual_seed(0))
        x = x.to(memory_format=layout)
        with torch.no_grad():
            assert torch.equal(frozen(x), norm(x))


def test_two_numbers_a_channel_are_stored():
    frozen = FrozenNorm.from_trained(shaken(nn.BatchNorm1d(5)))
    assert {name: tuple(t.shape) for name, t in frozen.state_dict().items()} == {
        "weight": (5,),
        "bias": (5,),
    }
    assert frozen.mean.tolist() == [0] * 5


def test_a_norm_without_statistics_has_no_frozen_form():
    assert FrozenNorm.from_trained(nn.BatchNorm2d(4, track_running_stats=False).eval()) is None
    assert FrozenNorm.from_trained(nn.BatchNorm2d(4).train()) is None


def test_statistics_are_there_after_a_stay_on_meta():
    frozen = FrozenNorm.from_trained(shaken(nn.BatchNorm1d(5)))
    x = torch.randn(3, 5)
    empty = FrozenNorm(5).to("meta").to_empty(device="cpu")
    for buffer in empty.buffers():
        buffer.fill_(7)  # what memory may hold
    empty.load_state_dict(frozen.state_dict())
    assert torch.equal(empty(x), frozen(x))
    assigned = FrozenNorm(5).to("meta")
    assigned.load_state_dict(frozen.state_dict(), assign=True)
    assert torch.equal(assigned(x), frozen(x))


def test_another_default_dtype_changes_nothing():
    norm = shaken(nn.BatchNorm1d(5))
    x = torch.randn(3, 5)
    with torch.no_grad():
        expected = norm(x)
    torch.set_default_dtype(torch.float64)
    try:
        assert torch.equal(FrozenNorm.from_trained(norm)(x), expected)
    finally:
        torch.set_default_dtype(torch.float32)
