"""Two processes with half a batch each start from the same parameters, and keep them the same."""

from __future__ import annotations

import math
import os
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from lowbit.quantizers import Quantizer, get, names
from lowbit.quantizers._initialise import DataInitialised
from lowbit.quantizers._registry import quantizers

pytestmark = pytest.mark.skipif(
    not (dist.is_available() and dist.is_gloo_available()), reason="needs torch with gloo"
)

RANKS = 2
NAMES = [
    n
    for n in names()
    if issubclass(cls := quantizers.resolve(n), DataInitialised)
    and cls.__module__.startswith("lowbit.")
]


def batch(rank: int) -> Tensor:
    """Halves of different size of values, so that their statistics differ."""
    generator = torch.Generator().manual_seed(rank)
    return (1 + 2 * rank) * torch.randn(8, 6, generator=generator)


class OneQuantizer(nn.Module):
    def __init__(self, quantizer: Quantizer) -> None:
        super().__init__()
        self.quantizer = quantizer

    def forward(self, x: Tensor) -> Tensor:
        return self.quantizer(x)


def bound(name: str) -> Quantizer:
    quantizer = get(name)
    assert quantizer is not None
    quantizer.bind(6, -1)
    return quantizer


def work(rank: int, folder: str) -> None:
    """What one process does: its state goes to a file, and the process ends there and then.

    Ending as usual would run the destructors of gloo and DistributedDataParallel, whose threads
    were once seen to abort a process that had nothing left to do (torch 2.14).
    """
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/init", rank=rank, world_size=RANKS
    )
    torch.save(states_of(rank), f"{folder}/{rank}.pt")
    dist.barrier()
    os._exit(0)


def states_of(rank: int) -> dict[str, dict[str, Tensor]]:
    """Quantizer -> its state after the process's half, alone and trained."""
    state = {}
    for name in NAMES:
        quantizer = bound(name)
        quantizer(batch(rank))
        state[name] = quantizer.state_dict()
    model = nn.parallel.DistributedDataParallel(OneQuantizer(bound("lsq")))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        (model(batch(rank)) - batch(rank)).square().sum().backward()
        optimizer.step()
    state["trained lsq"] = model.module.quantizer.state_dict()
    loaded = bound("lsq")
    if rank == 0:  # the other process gets it from DistributedDataParallel
        loaded.load_state_dict(state["lsq"])
    model = nn.parallel.DistributedDataParallel(OneQuantizer(loaded))
    model(3 * batch(rank)).sum().backward()
    state["loaded lsq"] = loaded.state_dict()
    return state


@pytest.fixture(scope="module")
def states(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, dict[str, Tensor]]]:
    """What each process ended with: quantizer -> its state."""
    folder: Path = tmp_path_factory.mktemp("gloo")
    torch.multiprocessing.spawn(work, args=(str(folder),), nprocs=RANKS)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(RANKS)]


@pytest.mark.parametrize("name", [*NAMES, "trained lsq", "loaded lsq"])
def test_both_processes_have_the_same_parameters(
    name: str, states: list[dict[str, dict[str, Tensor]]]
) -> None:
    first, second = states[0][name], states[1][name]
    assert first.keys() == second.keys()
    for key, value in first.items():
        assert torch.equal(value, second[key]), key
    assert first["initialised"]


@pytest.mark.parametrize("name", NAMES)
def test_that_is_not_what_one_half_alone_gives(
    name: str, states: list[dict[str, dict[str, Tensor]]]
) -> None:
    alone = bound(name)
    alone(batch(0))
    shared = states[0][name]
    assert any(not torch.equal(p, shared[key]) for key, p in alone.named_parameters())


def test_lsq_starts_from_the_mean_of_the_halves(
    states: list[dict[str, dict[str, Tensor]]],
) -> None:
    # Default arguments: 4 bits, signed, so Qp = 7.
    expected = sum(2 * batch(r).abs().mean() / math.sqrt(7) for r in range(RANKS)) / RANKS
    (step,) = [v for k, v in states[0]["lsq"].items() if k != "initialised"]
    torch.testing.assert_close(step.squeeze(), expected)


def test_training_moved_the_step(states: list[dict[str, dict[str, Tensor]]]) -> None:
    (before,) = [v for k, v in states[0]["lsq"].items() if k != "initialised"]
    (after,) = [v for k, v in states[0]["trained lsq"].items() if k != "initialised"]
    assert not torch.equal(before, after)


def test_a_state_loaded_in_one_process_is_kept_in_both(
    states: list[dict[str, dict[str, Tensor]]],
) -> None:
    for state in states:
        assert torch.equal(state["loaded lsq"]["step"], state["lsq"]["step"])
