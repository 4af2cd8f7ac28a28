"""prepare_qat: training with rounding, and that conversion returns what was trained."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import lowbit
from lowbit import qconfig as q
from lowbit.nn.qat import freeze_bn_stats
from lowbit.observers import (
    FakeQuantize,
    MovingAverageMinMaxObserver,
    disable_fake_quant,
    disable_observer,
)
from tests.convert.int8._int8 import conv, images, model_of, sqnr, used

# The same numbers, summed in float32, give 120 to 150 dB; one code of 255 that differs at a
# rounding tie takes half of that, a scale that differs all but 40.
BUT_FOR_TIES = 60.0


def network() -> nn.Module:
    def forward(self: Any, x: Tensor) -> Tensor:
        y = torch.relu(self.first(self.a(x)))
        y = torch.relu(self.second(self.b(y)) + y)
        y = F.max_pool2d(y, 2)
        y = torch.cat([y, self.d(y)], 1)
        return self.c(y.mean((2, 3)))

    torch.manual_seed(4)
    convs = {"a": conv(3, 8), "b": conv(8, 8, bias=False), "d": conv(8, 8)}
    norms = {"first": nn.BatchNorm2d(8), "second": nn.BatchNorm2d(8)}
    return model_of(forward, **convs, **norms, c=nn.Linear(16, 5))


def train(model: nn.Module, steps: int = 4, optimizer: Any = None) -> nn.Module:
    model.train()
    optimizer = optimizer or torch.optim.SGD(model.parameters(), lr=0.02)
    for step in range(steps):
        loss = F.cross_entropy(model(images(seed=step)), torch.arange(8) % 5)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model


def agreement(trained: nn.Module, x: Tensor) -> float:
    """dB between the fake-quantized model in eval mode and its int8 form."""
    trained.eval().apply(disable_observer)
    converted, report = lowbit.convert(trained, to="int8")
    assert all(row.int8 for row in report), report
    return sqnr(trained(x), converted(x))


def _int_k(bits: int) -> q.QConfig:
    inputs = {"name": "int_k", "bits": bits, "signed": False, "range": "moving_average"}
    return q.QConfig(inputs, {"name": "int_k", "bits": bits})


QCONFIGS: dict[str, Any] = {
    "none": None,
    **{name: name for name in ("x86", "onednn", "qnnpack")},
    "one weight scale": q.default_qat_qconfig,
    "int8 symmetric": q.default_per_channel_symmetric_qnnpack_qat_qconfig,
    **{f"int_k, {bits} bits": _int_k(bits) for bits in (2, 3, 4, 8)},
    **{
        f"lsq, {b} bits": q.QConfig({"name": "lsq", "bits": b}, {"name": "lsq", "bits": b})
        for b in (2, 3, 4, 8)
    },
    "lsq and int_k": q.QConfig("lsq", {"name": "int_k", "bits": 4}),
    "pact and dorefa": q.QConfig({"name": "pact", "bits": 4}, {"name": "dorefa_weight", "bits": 4}),
    "ternary weights": q.QConfig("lsq", "twn"),
    "binary weights": q.QConfig("lsq", "sign"),
    "an observer and lsq": q.QConfig(
        FakeQuantize.with_args(observer=MovingAverageMinMaxObserver, quant_min=0, quant_max=255),
        "lsq",
    ),
}


@pytest.mark.parametrize("name", QCONFIGS)
def test_the_int8_model_is_the_fake_quantized_one(name: str) -> None:
    trained = train(lowbit.prepare_qat(network(), QCONFIGS[name]))
    assert agreement(trained, images(seed=9)) > BUT_FOR_TIES


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_weights_have_as_many_values_as_their_bits_allow(bits: int) -> None:
    trained = train(lowbit.prepare_qat(network(), _int_k(bits)))
    converted, _ = lowbit.convert(trained, to="int8")
    for name, value in converted.state_dict().items():
        if name.endswith(".weight"):
            assert len(value.unique()) <= 2**bits


def test_qconfigs_of_torch_ao_train_alike() -> None:
    ao = pytest.importorskip("torch.ao.quantization")
    # Version 1 scales weights by 127.5 codes in training and by 127 in conversion.
    config = ao.get_default_qat_qconfig("x86", version=0)
    theirs = train(lowbit.prepare_qat(network(), config))
    ours = train(lowbit.prepare_qat(network(), "x86"))
    for a, b in zip(theirs.parameters(), ours.parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-4)
    assert agreement(theirs.apply(ao.disable_observer), images()) > BUT_FOR_TIES


def _conv1d() -> nn.Module:
    return nn.Sequential(nn.Conv1d(3, 8, 3), nn.BatchNorm1d(8), nn.ReLU(), nn.Conv1d(8, 4, 3))


def _conv3d() -> nn.Module:
    return nn.Sequential(nn.Conv3d(3, 8, 3), nn.BatchNorm3d(8), nn.ReLU(), nn.Conv3d(8, 4, 1))


def _sequence(*between: nn.Module) -> nn.Module:
    return nn.Sequential(conv(3, 8), *between, conv(8, 4))


def _untraceable() -> nn.Module:
    def forward(self: Any, x: Tensor) -> Tensor:
        if x.sum() > 1e9:
            return x
        return self.c(torch.relu(self.norm(self.a(x))).mean((2, 3)))

    return model_of(forward, a=conv(3, 8), norm=nn.BatchNorm2d(8), c=nn.Linear(8, 5))


def _shared() -> nn.Module:
    layer = conv(8, 8)
    return nn.Sequential(conv(3, 8), nn.BatchNorm2d(8), nn.ReLU(), layer, nn.ReLU(), layer)


NETWORKS: dict[str, tuple[Callable[[], nn.Module], Tensor]] = {
    "MLP with batch norm": (
        lambda: nn.Sequential(
            nn.Flatten(), nn.Linear(768, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 5)
        ),
        images(),
    ),
    "linear, relu": (
        lambda: nn.Sequential(nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 4)),
        images(),
    ),
    "conv1d": (_conv1d, images()[:, :, 0]),
    "conv3d": (_conv3d, images(4, size=6)[:, :, None].expand(-1, -1, 6, -1, -1)),
    "mobile": (
        lambda: nn.Sequential(
            conv(3, 8),
            nn.BatchNorm2d(8),
            nn.Hardswish(),
            conv(8, 8, groups=8),
            nn.BatchNorm2d(8),
            nn.ReLU6(),
            nn.Conv2d(8, 4, 1),
        ),
        images(),
    ),
    "norm without affine": (
        lambda: _sequence(nn.BatchNorm2d(8, affine=False), nn.ReLU()),
        images(),
    ),
    "norm behind the activation": (lambda: _sequence(nn.ReLU(), nn.BatchNorm2d(8)), images()),
    "dropout": (
        lambda: _sequence(nn.Dropout(0.2), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.5)),
        images(),
    ),
    "reflected padding": (
        lambda: nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1, padding_mode="reflect"), nn.ReLU(), conv(8, 4)
        ),
        images(),
    ),
    "one layer twice": (_shared, images()),
    "a forward that torch.fx cannot follow": (_untraceable, images()),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_kinds_of_layers(name: str) -> None:
    make, x = NETWORKS[name]
    model = lowbit.prepare_qat(used(make()))
    assert model.training
    for _ in range(3):
        model(x)
    model(x).square().mean().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())
    assert agreement(model, x) > 36


def test_without_rounding_it_trains_as_the_float_model_does() -> None:
    model = network()
    prepared = lowbit.prepare_qat(model)
    prepared.apply(disable_fake_quant)
    prepared.apply(disable_observer)
    x = images()
    assert torch.allclose(prepared(x), model.train()(x), atol=1e-5)
    assert torch.allclose(prepared.eval()(x), model.eval()(x), atol=1e-5)


def test_training_reaches_every_parameter_and_shares_none_with_the_model() -> None:
    model = network()
    prepared = lowbit.prepare_qat(model)
    assert len(list(prepared.parameters())) == len(list(model.parameters()))
    mine = {id(p) for p in model.parameters()}
    assert not any(id(p) in mine for p in prepared.parameters())
    prepared(images()).sum().backward()
    assert all(p.grad is not None for p in prepared.parameters())


def test_a_training_loop_with_adam_ema_and_frozen_statistics() -> None:
    model = lowbit.prepare_qat(network())
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    train(model, 6, optimizer)
    averaged = torch.optim.swa_utils.AveragedModel(model)
    train(model, 2, optimizer)
    averaged.update_parameters(model)
    model.apply(freeze_bn_stats).apply(disable_observer)
    before = {name: value.clone() for name, value in model.named_buffers()}
    weight = model.get_parameter("c.weight").clone()
    train(model, 2, optimizer)
    assert all(torch.equal(value, before[name]) for name, value in model.named_buffers())
    assert not torch.equal(model.get_parameter("c.weight"), weight)
    assert agreement(model, images(seed=9)) > BUT_FOR_TIES
    assert agreement(averaged.module, images(seed=9)) > BUT_FOR_TIES


def test_checkpoint_in_the_middle_of_training() -> None:
    model = train(lowbit.prepare_qat(network()))
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    file.seek(0)
    loaded = lowbit.prepare_qat(network())
    loaded.load_state_dict(torch.load(file, weights_only=True))
    x = images()
    wanted = lowbit.convert(model, to="int8").model(x)
    for other in (loaded, copy.deepcopy(model)):
        assert torch.equal(lowbit.convert(other, to="int8").model(x), wanted)


def test_training_at_four_bits_lowers_the_loss() -> None:
    """On one batch, from the loss of chance."""
    model = lowbit.prepare_qat(network(), q.QConfig("lsq", {"name": "int_k", "bits": 4}))
    optimizer = torch.optim.Adam(model.parameters(), 2e-2)
    x, labels = images(), torch.arange(8) % 5
    losses = []
    for _ in range(30):
        loss = F.cross_entropy(model(x), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]
    converted, _ = lowbit.convert(model.eval(), to="int8")
    assert (converted(x).argmax(1) == model(x).argmax(1)).all()
