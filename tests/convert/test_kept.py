"""What a graph would lose is kept: hooks, state, parameters that forward reads by itself."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import lowbit
from lowbit.convert import Report, Row
from lowbit.nn import QActivation, QConv2d, QLinear
from tests.convert._networks import SIGN, integers, shaken

SHAPE = (2, 32, 6, 6)


class Net(nn.Module):
    """conv - norm, and a forward that is given."""

    def __init__(self, forward=None, layer=None):
        super().__init__()
        self.f = nn.Conv2d(32, 32, 1)
        self.a = layer or QConv2d(32, 32, 3, padding=1, bias=False, **SIGN)
        self.n = nn.BatchNorm2d(32)
        self.b = QConv2d(32, 32, 3, padding=1, bias=False, **SIGN)
        self.register_buffer("memory", torch.zeros(32, 6, 6))
        self.given = forward

    def forward(self, x):
        return self.n(self.a(x)) if self.given is None else self.given(self, x)


def convert(model: nn.Module, **options):
    return lowbit.convert(model, keep_slower=True, **options)


def values(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return copy.deepcopy(model)(x.clone())


def same(model: nn.Module, **options) -> Report:
    """The report, where the converted model gives what the model gives."""
    x = integers(SHAPE)
    converted, report = convert(model, **options)
    assert torch.equal(values(converted, x), values(model, x))
    return report


def row(report: Report, name: str) -> Row:
    return next(row for row in report if row.name == name)


@pytest.mark.parametrize("inner", [False, True])
def test_hooks_of_the_whole_and_of_parts_go_on(inner):
    seen = []
    model = shaken(nn.Sequential(Net(), nn.ReLU()))
    hooked = model[0] if inner else model
    hooked.register_forward_pre_hook(lambda module, args: (args[0] - 0.5,))
    hooked.register_forward_hook(lambda module, args, y: seen.append(type(y)) or 2 * y)
    report = same(model)
    assert report[0].packed
    assert "hooks" in report.folding
    assert set(seen) == {torch.Tensor}


@pytest.mark.parametrize("name", ["a", "n"])
def test_a_forward_that_is_set_on_a_module(name):
    model = shaken(Net())
    module = model.get_submodule(name)
    kind = type(module)
    module.forward = lambda x: kind.forward(module, x) + 1
    same(model)


def doubled_weight(net, x):
    return net.b(net.n(net.f(x)) + net.n.weight.view(-1, 1, 1))


def statistics(net, x):
    y = net.b(net.n(net.f(x)))
    return F.batch_norm(y, net.n.running_mean, net.n.running_var, net.n.weight, net.n.bias)


def weight_of_a_layer(net, x):
    return net.n(net.a(x)) + F.conv2d(x, net.a.weight, padding=1)


@pytest.mark.parametrize("forward", [doubled_weight, statistics, weight_of_a_layer])
def test_parameters_that_forward_reads(forward):
    same(shaken(Net(forward)))


def quantizer_called(net, x):
    return net.n(net.a(x)) + net.a.input_quantization(x)


def quantizer_read(net, x):
    return net.n(net.a(x)) + net.a.input_quantization.shift.view(-1, 1, 1)


@pytest.mark.parametrize("forward", [quantizer_called, quantizer_read])
def test_a_layer_whose_quantizer_forward_uses_stays(forward):
    options = {**SIGN, "input_quantization": "rsign"}
    layer = QConv2d(32, 32, 3, padding=1, bias=False, **options)
    report = same(shaken(Net(forward, layer)))
    assert "forward reads or calls its parts" in row(report, "a").why


def written(net, x):
    y = net.n(net.a(x))
    net.memory.copy_(y.mean(0))
    return y + net.memory


def replaced(net, x):
    y = net.n(net.a(x))
    net.memory = net.memory + y.mean(0)
    return y + net.memory


def added(net, x):
    net.memory += 1
    return net.n(net.a(x)) + net.memory


def put(net, x):
    y = net.n(net.a(x))
    net.memory[0] = y[0, 0]
    return y + net.memory


def remembered(net, x):
    net.last = net.n(net.a(x))
    return net.last


@pytest.mark.parametrize("forward", [written, replaced, added, put, remembered])
def test_a_forward_that_writes_is_not_folded(forward):
    report = same(shaken(Net(forward)))
    assert "forward writes" in report.folding
    assert row(report, "a").packed


def test_what_is_written_in_a_trace_that_fails_is_not_in_the_result():
    def forward(net, x):
        net.last = net.a(x)
        return net.last if x.sum() > -1e30 else x

    converted, _ = convert(shaken(Net(forward)))
    assert not hasattr(converted, "last")


def views(net, x):
    y = net.a(x)
    y.chunk(2, 1)[0].clamp_(-0.5, 0.5).sub_(3)
    return net.b(y)


def test_a_change_in_place_of_a_view_of_a_view():
    assert "in place" in same(shaken(Net(views))).folding


def in_autocast(net, x):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = net.f(x)
    return net.n(net.a(y.float()))


def test_autocast_in_forward_is_kept():
    x = torch.randn(SHAPE)
    model = shaken(Net(in_autocast))
    converted, report = convert(model)
    assert "autocast" in report.folding
    assert torch.equal(values(converted, x), values(model, x))


def asking(net, x):
    if isinstance(x, torch.Tensor):
        x = x * 2 - 3
    return net.n(net.a(x))


def taking_either(net, x):
    return net.n(net.a(x if isinstance(x, torch.Tensor) else x[0].unsqueeze(0)))


@pytest.mark.parametrize("forward", [asking, taking_either])
def test_an_example_shows_where_the_graph_took_another_branch(forward):
    report = same(shaken(Net(forward)), example=integers(SHAPE))
    assert "on the example" in report.folding


def test_an_example_that_cannot_be_is_an_error():
    with pytest.raises(ValueError, match="example: the model cannot be called with it"):
        convert(shaken(Net()), example=torch.zeros(1, 3, 6, 6))
    with pytest.raises(TypeError, match="example is a tensor, or a tuple"):
        convert(shaken(Net()), example="x")
    with pytest.raises(TypeError, match=r"takes a torch\.nn\.Module; got 'x'"):
        convert("x")


def test_a_model_on_meta_is_told_what_to_do():
    with torch.device("meta"):
        model = Net()
    with pytest.raises(ValueError, match="on meta, without values"):
        convert(model)


@pytest.mark.parametrize(("shape", "channels", "axis", "packed"), [
    ((5, 10, 32), 10, 1, False),  # a shift for each token
    ((5, 32, 32), 32, 1, False),
    ((5, 10, 32), 32, 2, True),
    ((5, 32), 32, 1, True),
    ((5, 32), 32, -1, True),
])  # fmt: skip
def test_a_shift_for_each_feature_and_one_for_each_token(shape, channels, axis, packed):
    activation = QActivation("rsign", channels=channels, axis=axis)
    nn.init.normal_(activation.input_quantization.shift)
    layer = QLinear(32, 32, bias=False, weight_quantization="sign")
    model = nn.Sequential(activation, layer).eval()
    x = integers(shape) / 2
    for example in (None, x):
        converted, report = convert(model, example=example)
        assert torch.equal(values(converted, x), values(model, x))
    assert row(report, "1").packed == packed


def test_a_shift_for_each_column_of_an_image():
    activation = QActivation("rsign", channels=6, axis=-1)
    nn.init.normal_(activation.input_quantization.shift)
    layer = QConv2d(32, 32, 3, bias=False, weight_quantization="sign")
    assert not row(same(nn.Sequential(activation, layer).eval()), "1").packed


def test_what_is_converted_in_inference_mode_serves_outside():
    model = shaken(nn.Sequential(nn.Conv2d(32, 32, 1), *Net().children()))
    del model[-1]
    with torch.inference_mode():
        converted = convert(model).model
    assert converted(torch.randn(SHAPE)).requires_grad
