"""Optimizers run in one kernel where that is faster, unless their options say otherwise."""

import functools

import pytest
import torch
from torch import nn

from lowbit.optim import Bop, by_role
from lowbit.optim._fused import fuse, fuse_group, sparse_parameters


def fused(optimizer):
    return [group["fused"] for group in optimizer.param_groups]


@pytest.mark.parametrize(
    ("factory", "expected"),
    [(torch.optim.SGD, None), (torch.optim.Adam, True), (torch.optim.AdamW, True)],
)
def test_a_processor_fuses_adam(factory, expected):
    assert fused(by_role(nn.Linear(3, 2), factory, lr=0.1)) == [expected]


def test_what_has_no_fused_kernel_keeps_the_default():
    model = nn.Linear(3, 2, dtype=torch.complex64)
    assert fused(by_role(model, torch.optim.Adam, lr=0.1)) == [None]
    assert "fused" not in by_role(nn.Linear(3, 2), torch.optim.RAdam, lr=0.1).param_groups[0]


def test_sparse_gradients_are_not_given_to_fused_kernels():
    model = nn.Sequential(nn.EmbeddingBag(5, 3, sparse=True), nn.Linear(3, 2))
    sparse = sparse_parameters(model)
    assert sparse == {id(model[0].weight)}
    optimizer = torch.optim.Adam([{"params": [m.weight]} for m in model])
    fuse(optimizer, sparse)
    assert fused(optimizer) == [None, True]


LAYOUTS = [torch.contiguous_format, torch.channels_last]


def trained(make, layouts, gradients=None):
    """Weights after two steps, and two more once they lie otherwise, as after a checkpoint."""
    torch.manual_seed(0)
    model = nn.Conv2d(3, 4, 3).to(memory_format=layouts[0])
    optimizer = make(model)
    for layout in (layouts[0], layouts[1]):
        model.to(memory_format=layout)
        for _ in range(2):
            for p in model.parameters():
                p.grad = torch.randn(p.shape)
                if p.ndim == 4:
                    p.grad = p.grad.to(memory_format=gradients or layout)
            optimizer.step()
    return model.weight.detach()


@pytest.mark.parametrize("gradients", [None, *LAYOUTS], ids=str)
@pytest.mark.parametrize("second", LAYOUTS, ids=str)
@pytest.mark.parametrize("first", LAYOUTS, ids=str)
def test_layouts_in_memory_change_nothing(first, second, gradients):
    """The kernels themselves take memory as it lies, and would be wrong by the size of a step."""
    plain = functools.partial(torch.optim.Adam, fused=False, foreach=False)
    expected = trained(lambda m: plain(m.parameters(), lr=0.1), (first, second), gradients)
    found = trained(lambda m: by_role(m, torch.optim.Adam, lr=0.1), (first, second), gradients)
    torch.testing.assert_close(found, expected)


def test_a_state_from_a_checkpoint_of_another_layout_is_laid_out_anew():
    results = []
    for fuse_it in (True, False):
        torch.manual_seed(0)
        model = nn.Conv2d(3, 4, 3)
        factory = functools.partial(torch.optim.Adam, fused=None if fuse_it else False)
        first = by_role(model, factory, lr=0.1)
        model(torch.ones(1, 3, 4, 4)).square().sum().backward()
        first.step()
        model.to(memory_format=torch.channels_last)
        second = by_role(model, factory, lr=0.1)
        second.load_state_dict(first.state_dict())
        second.zero_grad()
        model(torch.ones(1, 3, 4, 4)).square().sum().backward()
        second.step()
        assert fused(second) == [fuse_it]
        results.append(model.weight.detach())
    torch.testing.assert_close(*results)


@pytest.mark.parametrize(
    ("options", "expected"),
    [({}, True), ({"fused": False}, False), ({"foreach": True}, None), ({"foreach": False}, None)],
)
def test_what_is_decided_stays(options, expected):
    group = torch.optim.Adam(nn.Linear(3, 2).parameters(), **options).param_groups[0]
    fuse_group(group)
    assert group["fused"] is expected


def test_an_optimizer_without_the_option_is_left_alone():
    group = Bop([nn.Parameter(torch.ones(2))]).param_groups[0]
    before = set(group)
    fuse_group(group)
    assert set(group) == before


@pytest.mark.parametrize(
    "factory", [functools.partial(torch.optim.SGD, momentum=0.9), torch.optim.Adam]
)
def test_a_fused_group_steps_as_the_others(factory):
    found = []
    for as_one in (True, False):
        torch.manual_seed(0)
        model = nn.Linear(3, 2)
        optimizer = factory(model.parameters(), lr=0.1)
        if as_one:
            fuse_group(optimizer.param_groups[0])
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


def test_a_checkpoint_of_plain_steps_goes_on_in_fused_ones():
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    plain = torch.optim.Adam(model.parameters(), lr=0.1)
    model(torch.ones(2, 3)).sum().backward()
    plain.step()
    optimizer = by_role(model, torch.optim.Adam, lr=0.1)
    state = plain.state_dict()
    state["param_groups"] = [
        {**theirs, "params": ours["params"]}
        for theirs, ours in zip(
            state["param_groups"], optimizer.state_dict()["param_groups"], strict=True
        )
    ]
    assert not state["param_groups"][0]["fused"]
    optimizer.load_state_dict(state)
    assert optimizer.param_groups[0]["fused"] is True
    optimizer.step()
    assert all(state["step"] == 2 for state in optimizer.state.values())
