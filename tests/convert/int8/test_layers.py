"""Layers with weights: kinds, geometry, padding, batch norms around them, sharing."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import lowbit
from lowbit.nn import quantized as nnq
from tests.convert.int8._int8 import conv, images, model_of, sqnr, to_int8, used

BOUND = 33.0


def _noise(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(2))


NETWORKS: dict[str, tuple[Callable[[], nn.Module], Tensor]] = {
    "conv1d": (
        lambda: nn.Sequential(
            nn.Conv1d(3, 8, 3),
            nn.BatchNorm1d(8),
            nn.ReLU(),
            nn.Conv1d(8, 4, 5, stride=2, dilation=2),
        ),
        _noise(8, 3, 20),
    ),
    "conv3d": (
        lambda: nn.Sequential(
            nn.Conv3d(3, 8, 3),
            nn.BatchNorm3d(8),
            nn.ReLU(),
            nn.MaxPool3d(2),
            nn.Conv3d(8, 4, 2),
        ),
        _noise(2, 3, 6, 8, 8),
    ),
    "depthwise separable": (
        lambda: nn.Sequential(
            conv(3, 8),
            nn.BatchNorm2d(8),
            nn.ReLU6(),
            conv(8, 8, groups=8, bias=False),
            nn.BatchNorm2d(8),
            nn.ReLU6(),
            nn.Conv2d(8, 4, 1),
        ),
        images(),
    ),
    "groups, dilation, uneven stride and padding": (
        lambda: nn.Sequential(
            conv(3, 8),
            nn.ReLU(),
            nn.Conv2d(8, 12, (3, 2), (2, 1), (0, 3), groups=4, dilation=(2, 1)),
        ),
        images(),
    ),
    "reflected padding": (
        lambda: nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1, padding_mode="reflect"),
            nn.ReLU(),
            nn.Conv2d(8, 8, 3, padding=(2, 1), padding_mode="reflect"),
        ),
        images(),
    ),
    "transposed": (
        lambda: nn.Sequential(
            nn.ConvTranspose2d(3, 8, 3, stride=2, padding=1, output_padding=1),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.ConvTranspose2d(8, 4, 2, groups=2),
        ),
        images(),
    ),
    "transposed, one axis, resized": (
        lambda: nn.Sequential(
            nn.ConvTranspose1d(3, 8, 3, stride=2),
            nn.ReLU(),
            nn.Upsample(scale_factor=2),
            nn.ConvTranspose1d(8, 4, 2),
        ),
        _noise(8, 3, 20),
    ),
    "padding by name": (
        lambda: nn.Sequential(
            nn.Conv2d(3, 8, (3, 5), padding="same", dilation=(2, 1)),
            nn.ReLU(),
            nn.Conv2d(8, 8, 3, padding="same", padding_mode="reflect"),
            nn.ReLU(),
            nn.Conv2d(8, 4, 2, padding="valid"),
        ),
        images(),
    ),
    "MLP": (
        lambda: nn.Sequential(
            nn.Flatten(),
            nn.Linear(768, 32),
            nn.BatchNorm1d(32),
            nn.ReLU(),
            nn.Dropout(),
            nn.Linear(32, 10),
            nn.LogSoftmax(1),
        ),
        images(),
    ),
    "linear layers on three axes": (
        lambda: nn.Sequential(
            nn.Linear(20, 16), nn.BatchNorm1d(3), nn.ReLU(), nn.Linear(16, 4, bias=False)
        ),
        _noise(8, 3, 20),
    ),
    "VGG": (
        lambda: nn.Sequential(
            nn.Sequential(conv(3, 8, bias=False), nn.BatchNorm2d(8), nn.ReLU(inplace=True)),
            nn.MaxPool2d(2),
            nn.Sequential(conv(8, 16, bias=False), nn.BatchNorm2d(16), nn.ReLU(inplace=True)),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Sequential(nn.Dropout(), nn.Linear(256, 32), nn.ReLU(inplace=True)),
            nn.Linear(32, 10),
        ),
        images(),
    ),
    "batch norm first, last, and before an activation": (
        lambda: nn.Sequential(
            nn.BatchNorm2d(3),
            conv(3, 8),
            nn.ReLU(),
            nn.BatchNorm2d(8),
            conv(8, 8),
            nn.BatchNorm2d(8, affine=False),
        ),
        images(),
    ),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_every_layer_of_the_network_runs_in_int8(name: str) -> None:
    make, x = NETWORKS[name]
    model = used(make())
    converted, report = to_int8(model, x)
    assert all(row.int8 for row in report), report
    assert sqnr(model(x), converted(x)) > BOUND


def test_the_prepared_model_computes_what_the_model_does() -> None:
    for make, x in NETWORKS.values():
        model = used(make())
        assert torch.allclose(lowbit.prepare(model)(x), model(x), atol=1e-5)


def test_batch_norms_disappear_into_their_layers() -> None:
    make, x = NETWORKS["depthwise separable"]
    converted, _ = to_int8(used(make()), x)
    assert not [m for m in converted.modules() if isinstance(m, nn.BatchNorm2d)]
    assert type(converted.get_submodule("0")) is nnq.ConvReLU2d


def test_a_layer_called_twice_has_a_scale_for_each_call() -> None:
    """Its inputs differ by a factor of 30: one scale for both would lose 20 dB in one of them."""
    linear = nn.Linear(16, 16)

    def forward(self: Any, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.linear(x), self.linear(x * 30)

    model = model_of(forward, linear=linear)
    x = _noise(64, 16)
    converted, _ = to_int8(model, x)
    for wanted, found in zip(model(x), converted(x), strict=True):
        assert sqnr(wanted, found) > BOUND


def test_a_layer_between_two_batch_norms_is_folded_for_each() -> None:
    def forward(self: Any, x: Tensor) -> Tensor:
        x = self.a(x)
        return self.second(self.b(torch.relu(self.first(self.b(x)))))

    norms = {"first": nn.BatchNorm2d(8), "second": nn.BatchNorm2d(8)}
    model = model_of(forward, a=conv(3, 8), b=conv(8, 8), **norms)
    x = images()
    converted, _ = to_int8(model, x)
    assert sqnr(model(x), converted(x)) > BOUND


def test_a_batch_norm_behind_two_layers_is_folded_into_each() -> None:
    def forward(self: Any, x: Tensor) -> Tensor:
        return self.norm(self.a(x)) + self.norm(self.b(x))

    model = model_of(forward, a=conv(3, 8), b=conv(3, 8), norm=nn.BatchNorm2d(8))
    x = images()
    converted, _ = to_int8(model, x)
    assert sqnr(model(x), converted(x)) > BOUND


def test_tied_weights_and_aliases() -> None:
    tied = nn.Sequential(nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 16))
    tied[2].weight = tied[0].weight
    layer = nn.Linear(16, 16)
    alias = nn.Sequential(layer, nn.ReLU(), layer, nn.ReLU(), layer)
    x = _noise(32, 16)
    for model in (tied, alias):
        converted, _ = to_int8(model.eval(), x)
        assert sqnr(model(x), converted(x)) > BOUND


def test_one_activation_module_in_several_places() -> None:
    relu = nn.ReLU(inplace=True)
    model = used(nn.Sequential(conv(3, 8), relu, conv(8, 8), relu, conv(8, 8), relu))
    x = images()
    converted, report = to_int8(model, x)
    assert all(row.int8 for row in report)
    assert sqnr(model(x), converted(x)) > BOUND


def test_a_subclass_with_its_own_forward_is_not_taken_for_its_parent() -> None:
    class Doubled(nn.Conv2d):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) * 2

    class Standardised(nn.Conv2d):
        def forward(self, x: Tensor) -> Tensor:
            return F.conv2d(x, self.weight / self.weight.norm(), self.bias)

    for kind in (Doubled, Standardised):
        model = nn.Sequential(conv(3, 8), nn.ReLU(), kind(8, 8, 3)).eval()
        x = images()
        converted, _ = to_int8(model, x)
        assert sqnr(model(x), converted(x)) > BOUND


@pytest.mark.parametrize("kind", ["forward hook", "pre-hook", "weight_norm"])
def test_layers_with_hooks_and_parametrizations_keep_them(kind: str) -> None:
    model = nn.Sequential(conv(3, 8), nn.ReLU(), conv(8, 8)).eval()
    if kind == "weight_norm":
        torch.nn.utils.parametrizations.weight_norm(model[0])
    elif kind == "pre-hook":
        model[0].register_forward_pre_hook(lambda module, inputs: (inputs[0] * 2,))
    else:
        model[0].register_forward_hook(lambda module, inputs, output: output * 2)
    x = images()
    converted, report = to_int8(model, x)
    assert [row.name for row in report if not row.int8] == ["0"]
    assert sqnr(model(x), converted(x)) > BOUND


def test_an_activation_with_a_hook_keeps_it() -> None:
    model = nn.Sequential(conv(3, 8), nn.ReLU(), conv(8, 8)).eval()
    model[1].register_forward_hook(lambda module, inputs, output: output * 2)
    x = images()
    converted, _ = to_int8(model, x)
    assert sqnr(model(x), converted(x)) > BOUND


def test_what_int8_has_no_form_of_stays_with_a_reason() -> None:
    """Uneven padding, another padding mode, and a call with more than its input."""

    def forward(self: Any, x: Tensor) -> Tensor:
        y = self.even(self.circular(torch.relu(self.a(x))))
        return self.up(y, output_size=[34, 34])

    model = model_of(
        forward,
        a=conv(3, 8),
        circular=nn.Conv2d(8, 8, 3, padding=1, padding_mode="circular"),
        even=nn.Conv2d(8, 8, 4, padding="same"),
        up=nn.ConvTranspose2d(8, 4, 3, stride=2),
    )
    x = images()
    converted, report = to_int8(model, x)
    rows = {row.name: row for row in report}
    assert [name for name in rows if rows[name].int8] == ["a"]
    assert "circular" in rows["circular"].why
    assert "same" in rows["even"].why
    assert converted(x).shape == (8, 4, 34, 34)
    assert sqnr(model(x), converted(x)) > BOUND


def test_functions_with_weights_stay_in_float() -> None:
    def forward(self: Any, x: Tensor) -> Tensor:
        y = F.conv2d(self.a(x), self.weight, padding=1)
        return F.linear(y.mean((2, 3)), self.c.weight, self.c.bias)

    model = model_of(forward, a=conv(3, 8), c=nn.Linear(8, 5))
    model.weight = nn.Parameter(_noise(8, 8, 3, 3))
    x = images()
    converted, _ = to_int8(model, x)
    assert sqnr(model(x), converted(x)) > BOUND


def test_layers_of_other_kinds_stay_with_a_reason() -> None:
    def forward(self: Any, x: Tensor) -> Tensor:
        return self.fc(self.lstm(x)[0][:, -1])

    model = model_of(forward, lstm=nn.LSTM(20, 8, batch_first=True), fc=nn.Linear(8, 5))
    x = _noise(8, 3, 20)
    converted, report = to_int8(model, x)
    rows = {row.name: row for row in report}
    assert rows["fc"].int8
    assert "quantize_dynamic" in rows["lstm"].why
    assert sqnr(model(x), converted(x)) > BOUND


def test_attention_and_embedding_stay_and_work() -> None:
    def attend(self: Any, x: Tensor) -> Tensor:
        return self.fc(self.attention(x, x, x)[0])

    attention = nn.MultiheadAttention(20, 2, batch_first=True)
    model = model_of(attend, attention=attention, fc=nn.Linear(20, 5))
    x = _noise(8, 3, 20)
    converted, _ = to_int8(model, x)
    assert sqnr(model(x), converted(x)) > BOUND

    def look_up(self: Any, i: Tensor) -> Tensor:
        return self.fc(self.embedding(i).mean(1))

    model = model_of(look_up, embedding=nn.Embedding(10, 8), fc=nn.Linear(8, 5))
    words = torch.randint(0, 10, (8, 6))
    converted, _ = to_int8(model, words)
    assert sqnr(model(words), converted(words)) > BOUND
