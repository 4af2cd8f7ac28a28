"""Callbacks do to weights, and say of them, what their names promise."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

import lowbit
from experiments.callbacks.cancelled_gradients import CancelledGradients
from experiments.callbacks.channels_last import ChannelsLast
from experiments.callbacks.flip_ratio import FlipRatio, level_codes
from experiments.callbacks.magnitude_clip import MagnitudeClip
from experiments.callbacks.normalisation_floor import NormalisationFloor
from experiments.callbacks.quantizer_schedule import QuantizerSchedule
from experiments.callbacks.weight_clip import WeightClip
from lowbit.nn import QConv2d, QLinear


class Module(nn.Module):
    """A stand-in for the recipe: a model, and a log."""

    def __init__(self, *layers):
        super().__init__()
        self.model = nn.Sequential(*layers)
        self.logged = {}

    def log(self, name, value, **options):
        self.logged[name] = float(value)


def test_weights_of_quantized_layers_are_clipped_and_others_are_not():
    module = Module(QLinear(4, 4, weight_quantization="sign"), QLinear(4, 4))
    for layer in module.model:
        nn.init.constant_(layer.weight, 3.0)
    WeightClip(0.5).on_train_batch_end(None, module)
    assert module.model[0].weight.eq(0.5).all()
    assert module.model[1].weight.eq(3.0).all()


def test_the_glorot_limit_counts_the_kernels_area():
    module = Module(QConv2d(2, 4, 3, weight_quantization="sign"))
    nn.init.constant_(module.model[0].weight, -3.0)
    WeightClip("glorot").on_train_batch_end(None, module)
    expected = -((1.5 / (2 * 9 + 4 * 9)) ** 0.5)
    torch.testing.assert_close(module.model[0].weight, torch.full((4, 2, 3, 3), expected))


def test_a_network_without_latent_weights_and_scales_is_left_as_it_is():
    module = Module(nn.Linear(4, 4))
    before = module.model[0].weight.detach().clone()
    WeightClip(0.5).on_train_batch_end(None, module)
    NormalisationFloor(3.0).on_train_batch_end(None, module)
    assert torch.equal(module.model[0].weight, before)


@pytest.mark.parametrize("limit", [0, -1.0, math.nan, "glorrot"])
def test_a_limit_that_is_none_is_refused(limit):
    with pytest.raises(ValueError, match="limit of WeightClip"):
        WeightClip(limit)


@pytest.mark.parametrize("epoch", [0, 1, 3])
def test_magnitudes_of_centred_weights_lie_between_their_percentiles(epoch):
    module = Module(QConv2d(3, 4, 3, weight_quantization="siman"), nn.Linear(4, 4))
    before = [p.detach().numpy().copy() for p in module.parameters()]
    callback = MagnitudeClip(20.0)
    callback.on_train_batch_end(SimpleNamespace(current_epoch=epoch, max_epochs=4), module)
    v = before[0] - before[0].mean((1, 2, 3), keepdims=True)
    low, high = np.percentile(np.abs(v), [20 * (1 - epoch / 4), 100 - 20 * (1 - epoch / 4)])
    expected = np.sign(v) * np.abs(v).clip(low, high)
    np.testing.assert_allclose(module.model[0].weight.detach(), expected, rtol=1e-5, atol=1e-7)
    assert (np.abs(v) < low).any()
    assert (np.abs(v) > high).any()
    np.testing.assert_array_equal(module.model[1].weight.detach(), before[-2])


@pytest.mark.parametrize("percent", [-1.0, 50.0])
def test_a_percentile_that_is_none_is_refused(percent):
    with pytest.raises(ValueError, match="percent of MagnitudeClip"):
        MagnitudeClip(percent)


def test_scales_of_batch_normalisation_stay_above_the_floor():
    module = Module(nn.BatchNorm1d(2), nn.BatchNorm1d(2, affine=False))
    module.model[0].weight.data = torch.tensor([-1.0, 2.0])
    NormalisationFloor(0.01).on_train_batch_end(None, module)
    torch.testing.assert_close(module.model[0].weight, torch.tensor([0.01, 2.0]))


def test_channels_last_lays_out_weights_and_what_convolutions_return():
    module = Module(nn.Conv2d(3, 4, 3), nn.Linear(4, 4))
    before = module.model[0].weight.detach().clone()
    ChannelsLast().on_fit_start(None, module)
    assert torch.equal(module.model[0].weight, before)
    for tensor in (module.model[0].weight, module.model[0](torch.randn(2, 3, 8, 8))):
        assert tensor.is_contiguous(memory_format=torch.channels_last)


def test_quantizers_hear_epoch_over_epochs():
    module = Module(QLinear(4, 4, input_quantization={"name": "ede", "t_min": 0.01, "t_max": 1.0}))
    trainer = SimpleNamespace(current_epoch=5, max_epochs=10)
    QuantizerSchedule().on_train_epoch_start(trainer, module)
    assert float(module.model[0].input_quantization.t) == pytest.approx(0.1)


def test_the_cancelled_fraction_is_that_above_the_threshold_in_the_first_batch():
    module = Module(
        QLinear(4, 4, input_quantization="sign", gradient_cancellation_threshold=1.0),
        QLinear(4, 4, input_quantization="sign"),
    )
    callback = CancelledGradients()
    for batch, x in enumerate(([[1.0, -1.5, 0.0, 2.0]], [[9.0, 9.0, 9.0, 9.0]])):
        callback.on_train_batch_start(None, module, None, batch)
        module.model(torch.tensor(x))
        callback.on_train_batch_end(None, module, None, None, batch)
    assert module.logged == {"cancelled/0": 0.5}
    assert not module.model[0]._forward_pre_hooks


def flips(spec, change):
    """The logged ratio when the weights of a layer become ``change(weights)`` in an epoch."""
    torch.manual_seed(0)
    module = Module(QLinear(32, 8, weight_quantization=spec))
    layer = module.model[0]
    layer.weight_quantization.train()
    layer(torch.randn(2, 32))  # the first batch sets learned ranges
    callback = FlipRatio()
    callback.on_train_epoch_start(None, module)
    with torch.no_grad():
        layer.weight.copy_(change(layer.weight))
    callback.on_train_epoch_end(None, module)
    assert module.logged["flips/all"] == module.logged["flips/0"]
    return module.logged["flips/all"]


@pytest.mark.parametrize("name", ["sign", "bireal_weight", "magnitude_aware_sign", "xnor", "twn"])
def test_a_change_of_scale_is_no_flip(name):
    assert flips(name, lambda w: w) == 0
    assert flips(name, lambda w: w * 0.5) == 0


@pytest.mark.parametrize("name", ["sign", "bireal_weight", "magnitude_aware_sign"])
def test_negated_weights_are_all_flips(name):
    assert flips(name, lambda w: -w) == 1


def test_flips_count_single_weights_although_the_scale_moves_with_them():
    def negate_four(w):
        w = w.clone()
        w[0, :4] *= -2
        return w

    assert flips("magnitude_aware_sign", negate_four) == 4 / 256


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_flips_of_a_grid_are_changes_of_the_integer(bits):
    spec = {"name": "lsq", "bits": bits}
    quantizer = lowbit.quantizers.get(spec)
    moved = flips(spec, lambda w: w.roll(1, 1))
    torch.manual_seed(0)
    layer = QLinear(32, 8, weight_quantization=spec)
    layer(torch.randn(2, 32))
    step = layer.weight_quantization.step
    codes = (layer.weight / step).clamp(quantizer.low, quantizer.high).round()
    assert moved == pytest.approx(float((codes != codes.roll(1, 1)).float().mean()))


def test_level_codes_do_not_depend_on_the_channels_scale():
    codes = torch.randint(-2, 2, (4, 50), generator=torch.Generator().manual_seed(0))
    scales = torch.tensor([[0.1], [0.3], [0.7], [1.9]])
    assert torch.equal(level_codes(codes * scales, 2, 0), codes)
    assert torch.equal(level_codes((codes * scales).T.contiguous(), 2, 1), codes.T)


def test_level_codes_between_the_integers_are_told_apart():
    values = torch.tensor([-1.0, -1 / 3, 1 / 3, 1.0])  # DoReFa, 2 bits
    assert level_codes(values, 2, 0).diff().tolist() == [1, 1, 1]


def test_level_codes_of_no_grid_are_ranks_about_zero():
    values = torch.tensor([-0.7, 0.0, 0.2, 0.2])  # TTQ
    assert level_codes(values, 2, 0).tolist() == [-1, 0, 1, 1]
