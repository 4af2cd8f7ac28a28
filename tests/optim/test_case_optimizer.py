"""Several optimizers as one: equal steps, schedulers, closure, state, copies."""

import copy
import io
import pickle

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.optim import SGD, Adagrad, Adam

from lowbit.nn import QLinear
from lowbit.optim import Bop, CaseOptimizer, by_role


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(6, 8),
        nn.BatchNorm1d(8),
        QLinear(8, 8, bias=False, input_quantization="ste_sign", weight_quantization="sign"),
        nn.BatchNorm1d(8),
        nn.Linear(8, 3),
    )


def make(model: nn.Module):
    return by_role(
        model,
        Adam,
        lr=0.01,
        latent={"optimizer": Bop, "lr": 0.1, "threshold": 1e-4},
        normalisation={"optimizer": SGD, "lr": 0.05, "momentum": 0.9},
    )


def train(model: nn.Module, optimizer, steps: range, scheduler=None) -> list[float]:
    losses = []
    for step in steps:
        generator = torch.Generator().manual_seed(step)
        x = torch.randn(16, 6, generator=generator)
        y = torch.randint(3, (16,), generator=generator)

        def closure(x=x, y=y):
            optimizer.zero_grad()
            loss = F.cross_entropy(model(x), y)
            loss.backward()
            return loss

        losses.append(optimizer.step(closure).item())
        if scheduler is not None:
            scheduler.step()
    return losses


def same(a: nn.Module, b: nn.Module) -> bool:
    return all(
        torch.equal(x, y)
        for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True)
    )


def test_it_steps_as_the_optimizers_would_apart():
    joined, apart = network(), network()
    optimizer = make(joined)
    train(joined, optimizer, range(8))

    norms = [*apart[1].parameters(), *apart[3].parameters()]
    floats = [*apart[0].parameters(), *apart[4].parameters()]
    separate = [
        Bop([apart[2].weight], lr=0.1, threshold=1e-4),
        SGD(norms, lr=0.05, momentum=0.9),
        Adam(floats, lr=0.01, fused=True),
    ]
    for step in range(8):
        generator = torch.Generator().manual_seed(step)
        x = torch.randn(16, 6, generator=generator)
        y = torch.randint(3, (16,), generator=generator)
        apart.zero_grad()
        F.cross_entropy(apart(x), y).backward()
        for one in separate:
            one.step()
    assert same(joined, apart)


def test_the_groups_are_the_optimizers_own():
    optimizer = make(network())
    assert len(optimizer.param_groups) == 3
    own = [group for one in optimizer.optimizers for group in one.param_groups]
    assert all(a is b for a, b in zip(optimizer.param_groups, own, strict=True))


def test_a_scheduler_moves_every_optimizer():
    model = network()
    optimizer = make(model)
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
    train(model, optimizer, range(2), scheduler)
    rates = {type(one): one.param_groups[0]["lr"] for one in optimizer.optimizers}
    assert rates == pytest.approx({Bop: 0.1 / 4, SGD: 0.05 / 4, Adam: 0.01 / 4})


def test_zero_grad_reaches_all():
    model = network()
    optimizer = make(model)
    model(torch.randn(4, 6)).sum().backward()
    optimizer.zero_grad()
    assert all(p.grad is None for p in model.parameters())


def test_a_resumed_training_is_bit_equal():
    whole = network()
    optimizer = make(whole)
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)
    train(whole, optimizer, range(10), scheduler)

    first = network()
    optimizer = make(first)
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)
    train(first, optimizer, range(5), scheduler)
    file = io.BytesIO()
    states = {
        "model": first.state_dict(),
        "optimizer": optimizer.state_dict(),
        "scheduler": scheduler.state_dict(),
    }
    torch.save(states, file)

    file.seek(0)
    states = torch.load(file, weights_only=True)
    second = network()
    optimizer = make(second)
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)
    second.load_state_dict(states["model"])
    optimizer.load_state_dict(states["optimizer"])
    scheduler.load_state_dict(states["scheduler"])
    own = [group for one in optimizer.optimizers for group in one.param_groups]
    assert all(a is b for a, b in zip(optimizer.param_groups, own, strict=True))
    train(second, optimizer, range(5, 10), scheduler)
    assert same(whole, second)


def test_a_state_dict_of_other_groups_is_refused():
    state = by_role(network(), Adam, lr=0.1).state_dict()
    state["param_groups"] = state["param_groups"][:2]
    with pytest.raises(ValueError, match="has 2 parameter groups, this optimizer 3"):
        make(network()).load_state_dict(state)


@pytest.mark.parametrize(
    "copied",
    [copy.deepcopy, lambda pair: pickle.loads(pickle.dumps(pair))],
    ids=["deepcopy", "pickle"],
)
def test_a_copy_trains_on_as_the_original_does(copied):
    model = network()
    optimizer = make(model)
    train(model, optimizer, range(3))
    twin, twin_optimizer = copied((model, optimizer))
    assert train(model, optimizer, range(3, 6)) == train(twin, twin_optimizer, range(3, 6))
    assert same(model, twin)


def test_its_state_reads_and_writes_the_optimizers_state():
    model = network()
    optimizer = make(model)
    train(model, optimizer, range(1))
    assert set(optimizer.state) == set(model.parameters())
    weight = model[2].weight
    optimizer.state[weight] = {"momentum": torch.ones_like(weight)}
    assert torch.equal(optimizer.optimizers[0].state[weight]["momentum"], torch.ones(8, 8))
    del optimizer.state[weight]
    assert weight not in optimizer.optimizers[0].state


def test_optimizers_that_make_their_state_early_join_too():
    first, second = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))
    optimizer = CaseOptimizer([Adagrad([first]), SGD([second], momentum=0.9)])
    for p in (first, second):
        p.grad = torch.ones(2)
    optimizer.step()
    twin = pickle.loads(pickle.dumps(optimizer))
    twin.load_state_dict(optimizer.state_dict())
    assert set(optimizer.state) == {first, second}


def test_two_optimizers_of_one_parameter_are_refused():
    parameter = nn.Parameter(torch.ones(2))
    with pytest.raises(ValueError, match="more than one parameter group"):
        CaseOptimizer([SGD([parameter]), Adam([parameter])])


def test_a_group_added_later_is_refused():
    with pytest.raises(ValueError, match="takes no further group"):
        make(network()).add_param_group({"params": [nn.Parameter(torch.ones(1))]})


def test_a_gradient_scaler_skips_the_step_of_an_overflow():
    model = network()
    optimizer = make(model)
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    scaler.scale(torch.zeros(()))  # makes its scale
    before = copy.deepcopy(model.state_dict())
    for p in model.parameters():
        p.grad = torch.full_like(p, float("inf"))
    scaler.step(optimizer)
    scaler.update()
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())
    assert scaler.get_scale() == 2.0

    for p in model.parameters():
        p.grad = torch.full_like(p, 4.0)
    scaler.unscale_(optimizer)
    assert all(bool((p.grad == 2).all()) for p in model.parameters())
    scaler.step(optimizer)
    assert not torch.equal(before["0.weight"], model[0].weight)
