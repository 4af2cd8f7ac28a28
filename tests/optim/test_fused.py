"""Optimizers run in one kernel on a GPU, unless their options say otherwise."""

import functools

import pytest
import torch
from torch import nn

from lowbit.optim import Bop, by_role
from lowbit.optim.claims import _fuse


def fused(optimizer):
    return [group["fused"] for group in optimizer.param_groups]


@pytest.mark.parametrize("factory", [torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW])
def test_a_processor_keeps_the_default(factory):
    assert fused(by_role(nn.Linear(3, 2), factory, lr=0.1)) == [None]


@pytest.mark.parametrize(
    ("options", "expected"),
    [({}, True), ({"fused": False}, False), ({"foreach": True}, None), ({"foreach": False}, None)],
)
def test_what_is_decided_stays(options, expected):
    group = torch.optim.Adam(nn.Linear(3, 2).parameters(), **options).param_groups[0]
    _fuse(group)
    assert group["fused"] is expected


def test_an_optimizer_without_the_option_is_left_alone():
    group = Bop([nn.Parameter(torch.ones(2))]).param_groups[0]
    before = set(group)
    _fuse(group)
    assert set(group) == before


@pytest.mark.parametrize(
    "factory", [functools.partial(torch.optim.SGD, momentum=0.9), torch.optim.Adam]
)
def test_a_fused_group_steps_as_the_others(factory):
    found = []
    for fuse in (True, False):
        torch.manual_seed(0)
        model = nn.Linear(3, 2)
        optimizer = factory(model.parameters(), lr=0.1)
        if fuse:
            _fuse(optimizer.param_groups[0])
        for _ in range(3):
            optimizer.zero_grad()
            model(torch.ones(4, 3)).square().sum().backward()
            optimizer.step()
        found.append(model.weight.detach())
    torch.testing.assert_close(found[0], found[1])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("factory", [torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW])
def test_a_gpu_takes_one_kernel(factory):
    model = nn.Linear(3, 2, device="cuda")
    optimizer = by_role(model, factory, lr=0.1)
    assert fused(optimizer) == [True]
    model(torch.ones(4, 3, device="cuda")).sum().backward()
    optimizer.step()
    assert model.weight.isfinite().all()
