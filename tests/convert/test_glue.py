"""Float layers around packed ones: the same values, in the layout and the calls that are fast."""

import copy
import io
import pickle

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import lowbit
from lowbit.convert._float import (
    ONE_DNN,
    ChannelsLast,
    FloatConv2d,
    FloatConvolution,
    LaidOutLike,
    OverlappingMaxPool2d,
)
from lowbit.convert._norm import FrozenNorm
from lowbit.models import QuickNet, ResNet18
from lowbit.nn import QConv2d
from tests.convert._networks import SIGN, integers, shaken

LAST = torch.channels_last
one_dnn = pytest.mark.skipif(ONE_DNN is None, reason="no oneDNN for this processor")


def convert(model: nn.Module, **options):
    return lowbit.convert(model, keep_slower=True, **options)


CONVOLUTIONS = {
    "1x1": (nn.Conv2d(64, 128, 1, bias=False), (1, 64, 28, 28)),
    "1x1, 3 images": (nn.Conv2d(64, 128, 1), (3, 64, 28, 28)),
    "stem": (nn.Conv2d(3, 16, 3, stride=2, padding=1), (1, 3, 96, 96)),
    "7x7": (nn.Conv2d(3, 16, 7, stride=2, padding=3), (1, 3, 41, 39)),
    "depthwise": (nn.Conv2d(32, 32, 3, padding=(1, 0), groups=32), (1, 32, 14, 13)),
    "dilated": (nn.Conv2d(16, 16, 5, dilation=2, groups=2), (1, 16, 28, 28)),
}


def reaches_one_dnn(layer: FloatConv2d, x: torch.Tensor) -> bool:
    return layer._convolved(x, layer.weight, layer.bias) is not None


@one_dnn
@pytest.mark.parametrize("layout", [torch.contiguous_format, LAST])
@pytest.mark.parametrize(("conv", "shape"), CONVOLUTIONS.values(), ids=CONVOLUTIONS)
def test_one_dnn_gives_the_sums_of_torch(conv, shape, layout):
    x = torch.randn(shape).to(memory_format=layout)
    fast = FloatConv2d.from_trained(conv)
    with torch.no_grad():
        assert reaches_one_dnn(fast, x)
        y = fast(x)
        torch.testing.assert_close(y, conv(x), rtol=1e-5, atol=1e-5)
    assert y.is_contiguous(memory_format=LAST)


@one_dnn
def test_torch_is_called_wherever_a_call_is_more_than_its_arithmetic():
    conv, shape = CONVOLUTIONS["1x1"]
    fast, x = FloatConv2d.from_trained(conv), torch.randn(shape)
    assert not reaches_one_dnn(fast, x)  # the weight takes a gradient
    fast(x).sum().backward()
    assert conv.weight.grad is not None
    with torch.no_grad():
        assert reaches_one_dnn(fast, x)
        for other in (x.double(), x.to("meta"), x[:0], x[:, :, :2, :2], x[0], x[:, :5]):
            assert not reaches_one_dnn(fast, other), other.shape
        with torch.autocast("cpu", torch.bfloat16):
            assert fast(x).dtype == torch.bfloat16
        assert torch.equal(fast(x[0]), conv(x[0]))
        assert fast(x[:0]).shape == (0, 128, 28, 28)
        mapped = torch.func.vmap(fast)(x.unsqueeze(0))
        torch.testing.assert_close(mapped[0], conv(x))
        with torch.backends.mkldnn.flags(enabled=False):
            assert not reaches_one_dnn(fast, x)
        with pytest.raises(RuntimeError, match="expected input"):
            fast(x[:, :5])
    assert copy.deepcopy(fast).double()(x.double()).dtype == torch.float64


@one_dnn
def test_a_changed_weight_is_seen():
    conv, shape = CONVOLUTIONS["1x1"]
    fast, x = FloatConv2d.from_trained(copy.deepcopy(conv)), torch.randn(shape)
    with torch.no_grad():
        first = fast(x)
        fast.weight.mul_(2)
        torch.testing.assert_close(fast(x), 2 * first)
        fast.load_state_dict(conv.state_dict())
        assert torch.equal(fast(x), first)
        fast.weight = nn.Parameter(3 * conv.weight)
        torch.testing.assert_close(fast(x), 3 * first)
    with torch.inference_mode():
        fast.weight.data = -conv.weight
        torch.testing.assert_close(fast(x), -first)


@one_dnn
def test_the_reordered_weight_is_not_stored():
    conv, shape = CONVOLUTIONS["1x1"]
    fast = FloatConv2d.from_trained(conv)
    plain = len(pickle.dumps(fast))
    with torch.no_grad():
        y = fast(torch.ones(shape))
        assert len(pickle.dumps(fast)) == plain
        assert set(fast.state_dict()) == {"weight"}
        for other in (copy.deepcopy(fast), pickle.loads(pickle.dumps(fast))):
            assert torch.equal(other(torch.ones(shape)), y)


@one_dnn
def test_other_paddings_stay_with_torch():
    for options in ({"padding": "same"}, {"padding": 1, "padding_mode": "reflect"}):
        assert FloatConv2d.from_trained(nn.Conv2d(4, 4, 2, **options)) is None
    assert FloatConv2d.from_trained(nn.Conv2d(4, 4, 2).double()) is None


@pytest.mark.parametrize("size", [(23, 30), (28, 28), (29, 41)])
@pytest.mark.parametrize(
    "window",
    [
        (2, 1),
        (3, 2),
        (3, 2, 1),
        (3, 1, 1),
        (3, 1),
        (3, 2, 1, 2),
        ((2, 3), (1, 2), (1, 0)),
        (3, 2, 0, 3),
    ],
)
def test_pooling_along_one_axis_after_the_other(window, size):
    pool = nn.MaxPool2d(*window)
    fast = OverlappingMaxPool2d.from_trained(pool)
    x = torch.randn(2, 64, *size)
    x[0, 3, 5, 6], x[1, 2] = torch.nan, -torch.inf
    for image in (x, x.to(memory_format=LAST), x[0]):
        y, expected = fast(image), pool(image)
        assert torch.equal(y.nan_to_num(7.0), expected.nan_to_num(7.0))
        assert torch.equal(y.isnan(), expected.isnan())
        assert y.stride() == expected.stride()
    x = x.nan_to_num(0.0).requires_grad_()
    fast(x).sum().backward()
    assert x.grad is not None


@pytest.mark.parametrize("pool", [nn.MaxPool2d(2), nn.MaxPool2d(3, 2, ceil_mode=True)])
def test_poolings_without_gain_stay(pool):
    assert OverlappingMaxPool2d.from_trained(pool) is None


@pytest.mark.parametrize("layout", [torch.contiguous_format, LAST])
def test_a_relu_joins_the_norm_before_it(layout):
    model = nn.Sequential(
        *(QConv2d(3, 64, 3, **SIGN), nn.BatchNorm2d(64), QConv2d(64, 64, 3, **SIGN)),
        *(nn.MaxPool2d(2), nn.BatchNorm2d(64), nn.ReLU()),
    )
    converted, _ = convert(shaken(model))
    (norm,) = (m for m in converted.modules() if isinstance(m, FrozenNorm))
    assert norm.relu
    assert not any(isinstance(m, nn.ReLU) for m in converted.modules())
    x = torch.randn(2, 64, 9, 9).to(memory_format=layout)
    kept = x.clone()
    with torch.no_grad():
        assert torch.equal(norm(x), model[5](model[4](x)))
    assert torch.equal(x, kept)


def images_seen(model: nn.Module, x: torch.Tensor) -> dict[str, bool]:
    """Whether each module's 4-d output is channels last, and the model's output."""
    seen = {}
    for name, module in model.named_modules():
        module.register_forward_hook(lambda m, i, y, name=name: seen.__setitem__(name, y))
    with torch.no_grad():
        model(x)
    floats = {k: y[0] if isinstance(y, tuple) else y for k, y in seen.items()}
    return {
        k: y.is_contiguous(memory_format=LAST)
        for k, y in floats.items()
        if y.ndim == 4 and y.is_floating_point()
    }


@pytest.mark.parametrize("make", [QuickNet, ResNet18])
def test_images_are_channels_last_inside_however_they_come(make):
    model = shaken(make(stem="imagenet", **SIGN) if make is ResNet18 else make(**SIGN))
    converted, _ = convert(model, fast_floats=True)
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        y = converted(x)
        assert torch.equal(y, converted(x.to(memory_format=LAST)))
        torch.testing.assert_close(y, model(x), rtol=1e-3, atol=1e-3 * float(y.abs().max()))
    seen = images_seen(converted, x)
    assert len(seen) > 10
    assert all(seen.values()), [name for name, last in seen.items() if not last]


class Views(nn.Module):
    """Operations that take an image as contiguous."""

    def __init__(self, kind):
        super().__init__()
        self.kind = kind
        self.stem = nn.Conv2d(3, 64, 1)
        self.norm = nn.BatchNorm2d(64)
        self.conv = QConv2d(64, 64, 3, padding=1, bias=False, **SIGN)

    def forward(self, x):
        x = self.norm(self.conv(self.norm(self.stem(x))))
        n = x.shape[0]
        match self.kind:
            case "image":
                return x
            case "view":
                return x.view(n, -1)
            case "merged":
                return torch.relu(x.flatten(2)).view(n, -1)
            case "shuffle":
                return x.view(n, 2, 32, -1).transpose(1, 2).contiguous().view(n, -1)
            case "strides":
                return x.mean() + x.stride(1)
            case "several":
                return {"image": x, "row": [x.flatten(1), x.mean((2, 3))]}
            case "mean first":
                return x - x.mean((2, 3), keepdim=True)


@pytest.mark.parametrize(
    "kind", ["image", "view", "merged", "shuffle", "strides", "several", "mean first"]
)
@pytest.mark.parametrize("fast_floats", [False, True])
def test_what_sees_the_layout_sees_the_trained_one(kind, fast_floats):
    model = shaken(Views(kind))
    converted, report = convert(model, fast_floats=fast_floats)
    assert report.folding == ""
    x = integers((1, 3, 40, 40))
    with torch.no_grad():
        y, expected = converted(x), model(x)
    for a, b in zip(*(torch.utils._pytree.tree_leaves(v) for v in (y, expected)), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-3)
        assert a.stride() == b.stride()


@pytest.mark.parametrize("images", [1, 3])
def test_images_of_one_channel_are_laid_out_too(images):
    """They are contiguous in both layouts, so that torch takes them for the other."""
    layers = [nn.Conv2d(1, 64, 5), nn.MaxPool2d(2), QConv2d(64, 64, 3, **SIGN), nn.BatchNorm2d(64)]
    model = shaken(nn.Sequential(*layers))
    converted, _ = convert(model, fast_floats=True)
    x = torch.randn(images, 1, 20, 24)
    seen = images_seen(converted, x)
    assert seen["0"]
    assert seen["1"]
    with torch.no_grad():
        torch.testing.assert_close(converted(x), model(x))
    assert converted(x).is_contiguous()


def test_a_chain_of_packed_layers_alone_is_not_laid_out_anew():
    layers = [QConv2d(64, 64, 3, **SIGN), nn.BatchNorm2d(64), QConv2d(64, 64, 3, **SIGN)]
    for fast_floats in (False, True):
        converted, _ = convert(shaken(nn.Sequential(*layers)), fast_floats=fast_floats)
        assert not any(isinstance(m, ChannelsLast | LaidOutLike) for m in converted.modules())


class Called(nn.Module):
    def __init__(self, groups=64, padding=1):
        super().__init__()
        self.register_buffer("kernel", torch.randn(64, 64 // groups, 3, 3))
        self.groups, self.padding = groups, padding
        self.conv = QConv2d(64, 64, 3, **SIGN)
        self.conv2d = nn.Sequential(nn.MaxPool2d(2))  # the name that the call has in a graph
        self.norm = nn.BatchNorm2d(64)

    def forward(self, x):
        x = F.conv2d(x, self.kernel, stride=2, padding=self.padding, groups=self.groups)
        return self.conv2d(self.norm(self.conv(x)))


@one_dnn
@pytest.mark.parametrize(("padding", "found"), [(1, True), ((1, 0), True), ("valid", False)])
def test_a_convolution_by_a_function_is_called_alike(padding, found):
    model = shaken(Called())
    model.padding = padding
    if padding == "valid":
        model.__class__ = type("Valid", (Called,), {"forward": _valid})
    converted, _ = convert(model, fast_floats=True)
    assert any(isinstance(m, FloatConvolution) for m in converted.modules()) == found
    assert set(converted.state_dict()) == set(convert(model).model.state_dict())
    x = torch.randn(1, 64, 20, 20)
    file = io.BytesIO()
    torch.save(converted, file)
    file.seek(0)
    with torch.no_grad():
        for net in (converted, torch.load(file, weights_only=False)):
            torch.testing.assert_close(net(x), model(x), rtol=1e-3, atol=1e-2)


def _valid(self, x):
    return self.norm(self.conv(F.conv2d(x, self.kernel, padding="valid", groups=self.groups)))


class SharedNorm(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = (QConv2d(64, 64, 3, bias=False, **SIGN) for _ in range(2))
        self.bias, self.norm = nn.BatchNorm2d(64), nn.BatchNorm2d(64)
        self.pool = nn.MaxPool2d(3, 1, 1)

    def forward(self, x):
        y = torch.relu(self.norm(self.pool(x)))
        return self.norm(self.pool(self.bias(self.second(self.first(y)))))


def test_a_norm_that_serves_twice_keeps_its_values():
    model = shaken(SharedNorm())
    converted, report = convert(model)
    assert report[1].folded == ["bias"]
    x = integers((2, 64, 9, 9))
    with torch.no_grad():
        assert torch.equal(converted(x), model(x))
        assert bool((model(x) < 0).any())
