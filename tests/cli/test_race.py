"""Models that are timed beside each other."""

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


def test_times_are_of_images_and_ratios_of_rounds(monkeypatch):
    seconds = {"trained": 0.5, "float": 0.25, "packed": 0.125}
    models = {name: nn.Identity() for name in seconds}
    by_model = {model: seconds[name] for name, model in models.items()}
    monkeypatch.setattr(_race, "_time", lambda model, images: by_model[model])
    assert _race.speed(models, torch.zeros(4, 1), 0.0) == {
        "batch": 4,
        "rounds": _race.LEAST_ROUNDS,
        "images_per_second": {"trained": 8.0, "float": 16.0, "packed": 32.0},
        "ratio": 4.0,
        "ratio_float": 2.0,
    }
