"""Models that are timed beside each other."""

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lowbit.cli import _race
from lowbit.nn import QConv2d


def test_the_float_twin_is_torchs_layer_and_the_model_stays_as_it_is():
    layer = QConv2d(3, 4, 3, padding=1, input_quantization="sign", weight_quantization="sign")
    x = torch.randn(2, 3, 5, 5)
    before = layer(x)
    twin = _race.float_twin(nn.Sequential(layer))
    assert torch.equal(twin(x), F.conv2d(x, layer.weight, layer.bias, padding=1))
    assert torch.equal(layer(x), before)
    assert not torch.equal(twin(x), before)


SECONDS = {"trained": 0.5, "float": 0.25, "packed": 0.125}


class Busy(nn.Module):
    """A model on a machine with other programs: both of its clocks are counters that it moves.

    In every other round each model waits as long as it computes, the first one for much longer.
    """

    def __init__(self, name, clocks):
        super().__init__()
        self.name, self.clocks, self.calls = name, clocks, 0

    def forward(self, images):
        took = SECONDS[self.name]
        waits = took * (100 if self.name == "trained" else 1) if self.calls % 2 else 0.0
        self.calls += 1
        self.clocks["processor"] += took
        self.clocks["wall"] += took + waits


@pytest.fixture
def busy(monkeypatch):
    """``busy(threads)``: the speeds of three such models in that many threads."""

    def measure(threads):
        clocks = {"processor": 0.0, "wall": 0.0}
        time = SimpleNamespace(
            thread_time=lambda: clocks["processor"], perf_counter=lambda: clocks["wall"]
        )
        monkeypatch.setattr(_race, "time", time)
        monkeypatch.setattr(_race.torch, "get_num_threads", lambda: threads)
        models = {name: Busy(name, clocks) for name in SECONDS}
        return _race.speed(models, torch.zeros(4, 1), 0.0)

    return measure


@pytest.mark.parametrize("threads", [1, 2])
def test_a_busy_machine_does_not_change_times_and_ratios(threads, busy):
    assert busy(threads) == {
        "batch": 4,
        "rounds": _race.LEAST_ROUNDS,
        "images_per_second": {"trained": 8.0, "float": 16.0, "packed": 32.0},
        "ratio": 4.0,
        "ratio_float": 2.0,
    }
