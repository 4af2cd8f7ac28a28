"""What stands between two convolutions, as a function, a method, an operator or a module."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import lowbit
from lowbit.nn import quantized as nnq
from tests.convert.int8._int8 import conv, images, model_of, sqnr, to_int8, used

# Two 8-bit layers on normal inputs give 36 to 40 dB; an average over few codes, whose scale is
# that of its input, gives less. A layer with the scale of another gives less than 15.
BOUND = 33.0
AVERAGED = 27.0

FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "relu in place": lambda t: F.relu(t, inplace=True),
    "torch.relu": torch.relu,
    "method relu": lambda t: t.relu(),
    "relu6": F.relu6,
    "hardtanh": lambda t: F.hardtanh(t, -0.5, 0.7),
    "clamp": lambda t: t.clamp(-0.3, 0.5),
    "clamp_min": lambda t: torch.clamp(t, min=0.1),
    "hardswish": F.hardswish,
    "hardsigmoid": F.hardsigmoid,
    "silu": F.silu,
    "gelu": F.gelu,
    "elu": F.elu,
    "leaky_relu": F.leaky_relu,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "F.sigmoid, which calls the method": F.sigmoid,
    "F.tanh, which calls the method": F.tanh,
    "sigmoid method": lambda t: t.sigmoid(),
    "tanh method": lambda t: t.tanh(),
    "softmax": lambda t: F.softmax(t, 1),
    "softplus": F.softplus,
    "max_pool2d": lambda t: F.max_pool2d(t, 2),
    "padded max_pool2d": lambda t: F.max_pool2d(t, 3, 2, 1),
    "adaptive_max_pool2d": lambda t: F.adaptive_max_pool2d(t, 4),
    "nearest": lambda t: F.interpolate(t, scale_factor=2.0),
    "bicubic": lambda t: F.interpolate(t, scale_factor=1.5, mode="bicubic"),
    "area": lambda t: F.interpolate(t, size=7, mode="area"),
    "nearest-exact": lambda t: F.interpolate(t, None, 2.0, "nearest-exact"),
    "relu method of a concatenation": lambda t: torch.cat([t, t], 0).relu(),
    "relu method of a pooling": lambda t: F.max_pool2d(t, 2).relu_(),
    "pad": lambda t: F.pad(t, (1, 0, 2, 1)),
    "reflect": lambda t: F.pad(t, (1, 1, 2, 1), mode="reflect"),
    "padded with a value": lambda t: F.pad(t, (1, 1, 2, 1), value=0.7),
    "permute": lambda t: t.permute(0, 1, 3, 2),
    "transpose": lambda t: t.transpose(2, 3),
    "flip": lambda t: t.flip(3),
    "roll": lambda t: torch.roll(t, 1, 2),
    "view": lambda t: t.view(t.size(0), 8, -1, 4),
    "flatten and unflatten": lambda t: t.flatten(1, 2).unflatten(1, (8, -1)),
    "chunk": lambda t: torch.cat(t.chunk(2, 1)[::-1], 1),
    "split": lambda t: torch.cat(t.split([3, 5], 1), 1),
    "slice": lambda t: t[:, :, ::2, 1:],
    "narrow": lambda t: t.narrow(2, 1, 5),
    "select by a list": lambda t: t[:, [7, 6, 5, 4, 3, 2, 1, 0]],
    "stack": lambda t: torch.stack([t, t], 1).flatten(0, 1),
    "repeat": lambda t: t.repeat(1, 1, 2, 1),
    "channel_shuffle": lambda t: F.channel_shuffle(t, 2),
    "pixel_unshuffle": lambda t: F.pixel_unshuffle(t, 2)[:, :8],
    "channels_last": lambda t: t.contiguous(memory_format=torch.channels_last),
    "dropout": lambda t: F.dropout(t, 0.5, False),
    "detach, clone, float": lambda t: t.detach().clone().float(),
    "normalize": F.normalize,
    "abs": torch.abs,
    "neg": lambda t: -t,
    "square": lambda t: t**2,
    "exp": torch.exp,
    "maximum": lambda t: torch.maximum(t, t * 0.1),
    "where": lambda t: torch.where(t > 0, t, t * 0.1),
    "layer_norm": lambda t: F.layer_norm(t, t.shape[1:]),
    "group_norm": lambda t: F.group_norm(t, 2),
    "sum of an axis": lambda t: t.sum(2, keepdim=True) / 8,
    "amax": lambda t: t.amax(3, keepdim=True),
    "mean of the places": lambda t: t.mean((2, 3), keepdim=True),
    "matmul": lambda t: t @ t.transpose(2, 3),
    "times a number, plus a number": lambda t: t * 2 + 1,
    "one minus": lambda t: 1 - t,
    "divided": lambda t: t / 3,
    "added to itself": lambda t: t + t,
    "times itself": lambda t: t * t,
    "gated": lambda t: t * torch.sigmoid(t),
    "in-place chain": lambda t: t.mul(2).add_(1).relu_(),
}
AVERAGES: dict[str, Callable[[Tensor], Tensor]] = {
    "avg_pool2d": lambda t: F.avg_pool2d(t, 3, 2, 1),
    "avg_pool2d without the padding": lambda t: F.avg_pool2d(t, 3, 2, 1, count_include_pad=False),
    "adaptive_avg_pool2d": lambda t: F.adaptive_avg_pool2d(t, (4, 3)),
    "bilinear": lambda t: F.interpolate(t, size=(20, 24), mode="bilinear", align_corners=False),
}
MODULES: dict[str, Callable[[], nn.Module]] = {
    "ReLU": nn.ReLU,
    "ReLU in place": lambda: nn.ReLU(inplace=True),
    "ReLU6": nn.ReLU6,
    "Hardtanh": lambda: nn.Hardtanh(-0.4, 0.9),
    "Hardswish": nn.Hardswish,
    "Hardsigmoid": nn.Hardsigmoid,
    "SiLU": nn.SiLU,
    "GELU": nn.GELU,
    "ELU": nn.ELU,
    "CELU": nn.CELU,
    "LeakyReLU": lambda: nn.LeakyReLU(0.1),
    "PReLU": nn.PReLU,
    "PReLU for each channel": lambda: nn.PReLU(8, 0.4),
    "bicubic Upsample": lambda: nn.Upsample(scale_factor=2, mode="bicubic"),
    "Sigmoid": nn.Sigmoid,
    "Tanh": nn.Tanh,
    "Softmax": lambda: nn.Softmax(1),
    "Threshold": lambda: nn.Threshold(0.1, 0.0),
    "GroupNorm": lambda: nn.GroupNorm(2, 8),
    "LayerNorm": lambda: nn.LayerNorm([8, 16, 16]),
    "InstanceNorm2d": lambda: nn.InstanceNorm2d(8, affine=True),
    "InstanceNorm2d with statistics": lambda: nn.InstanceNorm2d(8, track_running_stats=True),
    "BatchNorm2d": lambda: nn.BatchNorm2d(8),
    "BatchNorm2d without affine": lambda: nn.BatchNorm2d(8, affine=False),
    "BatchNorm2d without statistics": lambda: nn.BatchNorm2d(8, track_running_stats=False),
    "ReLU, BatchNorm2d": lambda: nn.Sequential(nn.ReLU(), nn.BatchNorm2d(8)),
    "BatchNorm2d twice": lambda: nn.Sequential(nn.BatchNorm2d(8), nn.BatchNorm2d(8)),
    "Dropout, BatchNorm2d": lambda: nn.Sequential(nn.Dropout(0.3), nn.BatchNorm2d(8)),
    "MaxPool2d, BatchNorm2d": lambda: nn.Sequential(nn.MaxPool2d(2), nn.BatchNorm2d(8)),
    "MaxPool2d": lambda: nn.MaxPool2d(3, 2, 1, ceil_mode=True),
    "dilated MaxPool2d": lambda: nn.MaxPool2d(2, dilation=2),
    "Upsample": lambda: nn.Upsample(scale_factor=2),
    "ZeroPad2d": lambda: nn.ZeroPad2d(1),
    "ReflectionPad2d": lambda: nn.ReflectionPad2d(2),
    "ConstantPad2d": lambda: nn.ConstantPad2d(1, -0.5),
    "PixelShuffle": lambda: nn.Sequential(nn.PixelShuffle(2), nn.PixelUnshuffle(2)),
    "ChannelShuffle": lambda: nn.ChannelShuffle(4),
    "Flatten, Unflatten": lambda: nn.Sequential(nn.Flatten(), nn.Unflatten(1, (8, 16, 16))),
    "Identity": nn.Identity,
    "Dropout2d": nn.Dropout2d,
    "GLU": lambda: nn.Sequential(nn.Conv2d(8, 16, 1), nn.GLU(1)),
    "nested": lambda: nn.Sequential(nn.Sequential(nn.Sequential(nn.ReLU()), nn.Identity())),
}


def between(function: Callable[[Tensor], Tensor]) -> nn.Module:
    """conv - the function - conv."""
    return model_of(lambda self, x: self.b(function(self.a(x))), a=conv(3, 8), b=conv(8, 8))


def check(model: nn.Module, bound: float) -> None:
    x = images()
    converted, report = to_int8(model, x)
    assert all(row.int8 for row in report), report
    assert not report.folding
    assert sqnr(model(x), converted(x)) > bound


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_between_two_convolutions(name: str) -> None:
    check(between(FUNCTIONS[name]), BOUND)


@pytest.mark.parametrize("name", AVERAGES)
def test_an_average_between_two_convolutions(name: str) -> None:
    check(between(AVERAGES[name]), AVERAGED)


@pytest.mark.parametrize("name", MODULES)
def test_a_module_between_two_convolutions(name: str) -> None:
    check(used(nn.Sequential(conv(3, 8), MODULES[name](), conv(8, 6))), BOUND)


def _plus(self: Any, x: Tensor) -> Tensor:
    y = self.a(x)
    return F.relu(self.b(y) + y)


def _iadd(self: Any, x: Tensor) -> Tensor:
    y = self.a(x)
    z = self.b(y)
    z += y
    return F.relu(z, inplace=True)


def _onto_the_residual(self: Any, x: Tensor) -> Tensor:
    y = F.relu(self.a(x)) + self.c(x)
    y += self.b(y)
    return self.b(y)


def _torch_add(self: Any, x: Tensor) -> Tensor:
    y = self.a(x)
    return torch.add(self.b(y), y).relu()


def _alpha(self: Any, x: Tensor) -> Tensor:
    y = self.a(x)
    return torch.add(self.b(y), y, alpha=0.5) - y.mul(0.25)


def _method(self: Any, x: Tensor) -> Tensor:
    y = self.a(x)
    return self.b(y).add_(y).relu_()


def _both_branches(self: Any, x: Tensor) -> Tensor:
    return F.relu(self.a(x) + self.c(x))


def _three(self: Any, x: Tensor) -> Tensor:
    y = self.a(x)
    return self.b(y) + y + self.c(x)


@pytest.mark.parametrize(
    "forward",
    [_plus, _iadd, _onto_the_residual, _torch_add, _alpha, _method, _both_branches, _three],
)
def test_residual_sums_need_no_edits(forward: Callable[..., Tensor]) -> None:
    check(model_of(forward, a=conv(3, 8), b=conv(8, 8), c=conv(3, 8)), BOUND)


def _alias(self: Any, x: Tensor) -> Tensor:
    y = self.a(x)
    z = y
    y += self.b(y)
    return self.b(z)


def _view(self: Any, x: Tensor) -> Tensor:
    y = self.a(x)
    z = y.view(y.shape)
    y += self.b(y)
    return self.b(z)


def _of_view(self: Any, x: Tensor) -> Tensor:
    y = self.a(x)
    z = y.view(y.shape)
    z += self.b(z)
    return self.b(y)


@pytest.mark.parametrize("forward", [_alias, _view, _of_view])
def test_a_sum_onto_a_value_that_is_read_later_keeps_its_meaning(
    forward: Callable[..., Tensor],
) -> None:
    model, x = model_of(forward, a=conv(3, 8), b=conv(8, 8)), images()
    converted, report = to_int8(model, x)
    assert "changes in place a value that others read" in report.folding
    assert sqnr(model(x), converted(x)) > BOUND


def test_sum_and_relu_run_inside_the_convolution() -> None:
    def forward(self: Any, x: Tensor) -> Tensor:
        y = self.a(x)
        return self.c(F.relu(self.b(y) + y))

    model = model_of(forward, a=conv(3, 8), b=conv(8, 8), c=conv(8, 8))
    converted, report = to_int8(model, images())
    assert type(converted.get_submodule("b")) is nnq.ConvAddReLU2d
    assert {row.name: row.folded for row in report}["b"] == ["add", "relu"]


def test_a_residual_that_is_also_returned_keeps_its_value() -> None:
    """The kernel adds in place: into a copy, here."""

    def forward(self: Any, x: Tensor) -> tuple[Tensor, Tensor]:
        y = F.relu(self.a(x))
        return F.relu(self.b(y) + y), y

    model = model_of(forward, a=conv(3, 8), b=conv(8, 8))
    x = images()
    converted, _ = to_int8(model, x)
    for wanted, found in zip(model(x), converted(x), strict=True):
        assert sqnr(wanted, found) > BOUND


@pytest.mark.parametrize("dim", [1, -3])
def test_concatenation_of_a_conv_the_input_and_a_sum(dim: int) -> None:
    def forward(self: Any, x: Tensor) -> Tensor:
        y = self.a(x)
        return self.c(torch.cat((y, x, self.b(y) + y), dim))

    check(model_of(forward, a=conv(3, 8), b=conv(8, 8), c=conv(19, 4)), BOUND)


@pytest.mark.parametrize("torch_ao", [False, True])
def test_float_functional(torch_ao: bool) -> None:
    """Those of torch.ao need no replacement."""
    if torch_ao:
        kind: Any = pytest.importorskip("torch.ao.nn.quantized").FloatFunctional
    else:
        kind = nnq.FloatFunctional

    def forward(self: Any, x: Tensor) -> Tensor:
        y = self.a(x)
        y = self.f.add_relu(self.b(y), y)
        y = self.g.cat([self.b(y), y], 1)
        y = self.h.mul(y, y)
        return self.i.mul_scalar(self.i.add_scalar(y, 1.5), -2.0)

    modules = {name: kind() for name in "fghi"}
    check(model_of(forward, a=conv(3, 8), b=conv(8, 8), **modules), BOUND)


def test_a_value_is_read_before_and_after_its_activation() -> None:
    def forward(self: Any, x: Tensor) -> Tensor:
        y = self.a(x)
        return self.b(torch.relu(y)) + y

    check(model_of(forward, a=conv(3, 8), b=conv(8, 8)), BOUND)


def _zero_the_first_channel(t: Tensor) -> None:
    t[:, 0] = 0


IN_PLACE: dict[str, Callable[[Tensor], object]] = {
    "relu_": lambda t: F.relu_(t),
    "method relu_": lambda t: t.relu_(),
    "add_": lambda t: t.add_(1),
    "clamp_": lambda t: t.clamp_(0, 1),
    "setitem": _zero_the_first_channel,
    "relu in place": lambda t: F.relu(t, inplace=True),
}


@pytest.mark.parametrize("name", IN_PLACE)
def test_a_value_changed_in_place_is_read_as_changed(name: str) -> None:
    def forward(self: Any, x: Tensor) -> Tensor:
        y = self.a(x)
        IN_PLACE[name](y)
        return self.b(y)

    model = model_of(forward, a=conv(3, 8), b=conv(8, 8))
    x = images()
    prepared = lowbit.prepare(model)
    assert torch.allclose(prepared(x), model(x), atol=1e-5)
    converted, _ = lowbit.convert(prepared, to="int8")
    assert sqnr(model(x), converted(x)) > BOUND
