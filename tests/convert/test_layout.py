"""The default conversion: images go channels last only where that changes no bit."""

import copy
import pickle

import pytest
import torch
from torch import nn

import lowbit
from lowbit.convert._float import ChannelsLast
from lowbit.convert._layout import LEAST_GAINING, AsTrained, says_channels_last
from lowbit.models import QuickNet, ResNet18
from lowbit.nn import QConv2d
from lowbit.nn.packed import PackedConv2d
from tests.convert._networks import SIGN, Residual, integers, shaken

LAST, USUAL = torch.channels_last, torch.contiguous_format
LAYOUTS = pytest.mark.parametrize("layout", [USUAL, LAST])


def convert(model: nn.Module) -> nn.Module:
    return lowbit.convert(model, keep_slower=True).model


def laid_out(shape: tuple[int, ...], layout: torch.memory_format) -> torch.Tensor:
    """Drawn numbers, with strides of the layout where a size is 1 as well."""
    return torch.empty(shape, memory_format=layout).copy_(integers(shape))


def inputs_seen(model: nn.Module, x: torch.Tensor, *kinds: type) -> list[tuple[int, ...]]:
    """Strides of the images that modules of these kinds read, in order."""
    seen: list[tuple[int, ...]] = []
    hooks = [
        m.register_forward_pre_hook(lambda m, args: seen.append(args[0].stride()))
        for m in model.modules()
        if type(m) in kinds
    ]
    with torch.no_grad():
        model(x)
    for hook in hooks:
        hook.remove()
    return seen


@LAYOUTS
@pytest.mark.parametrize("make", [QuickNet, ResNet18])
def test_float_convolutions_read_the_strides_of_the_trained_model(make, layout):
    options = {"stem": "imagenet", "downsample": "pool_float"} if make is ResNet18 else {}
    model = shaken(make(**options, **SIGN))
    converted = convert(model)
    for size in (64, 33, 32):  # of 32, the last images are 1 x 1
        x = laid_out((1, 3, size, size), layout)
        seen, expected = (inputs_seen(m, x, nn.Conv2d) for m in (converted, model))
        assert seen == expected
        assert len(seen) >= 4


@pytest.mark.parametrize("make", [QuickNet, ResNet18])
def test_packed_layers_work_channels_last_for_contiguous_images(make):
    options = {"stem": "imagenet", "downsample": "pool_float"} if make is ResNet18 else {}
    converted = convert(shaken(make(**options, **SIGN)))
    outputs = []
    for module in converted.modules():
        if isinstance(module, PackedConv2d):
            module.register_forward_hook(
                lambda m, i, y: outputs.append(y[0] if isinstance(y, tuple) else y)
            )
    with torch.no_grad():
        converted(torch.randn(1, 3, 96, 96))
    assert len(outputs) == 16
    assert all(y.is_contiguous(memory_format=LAST) for y in outputs)


@LAYOUTS
def test_the_caller_gets_the_layout_of_the_trained_model(layout):
    options = {"bias": False, **SIGN}
    layers = [nn.MaxPool2d(2), QConv2d(32, 64, 3, **options), QConv2d(64, 40, 3, **options)]
    for count in (3, 2, 1):
        model = shaken(nn.Sequential(*layers[-count:]))
        converted = convert(model)
        x = laid_out((2, 64 if count == 1 else 32, 14, 15), layout)
        with torch.no_grad():
            y, expected = converted(x), model(x)
        assert torch.equal(y, expected)
        assert y.stride() == expected.stride()


@LAYOUTS
@pytest.mark.parametrize("padding_mode", ["zeros", "circular"])
@pytest.mark.parametrize("count", [1, LEAST_GAINING])
def test_parts_of_images_have_the_layout_of_the_whole(count, padding_mode, layout):
    class Part(nn.Module):
        """Of every second pixel, what some layers and a float convolution make."""

        def __init__(self):
            super().__init__()
            options = {"padding": 1, "padding_mode": padding_mode, "bias": False, **SIGN}
            self.first = QConv2d(16, 32, 3, **options)
            self.rest = nn.Sequential(*[Residual() for _ in range(count)])
            self.end = nn.Conv2d(32, 64, 1)

        def forward(self, x):
            return self.end(torch.relu(self.rest(self.first(x[:, :, ::2, ::2]))))

    model = shaken(Part())
    converted, x = convert(model), laid_out((1, 16, 9, 9), layout)
    (read,), (expected,) = (inputs_seen(m, x, nn.Conv2d) for m in (converted, model))
    assert read == expected
    with torch.no_grad():
        assert torch.equal(converted(x), model(x))


def test_few_packed_layers_do_not_pay_for_copies():
    def copies(count: int) -> int:
        chain = convert(shaken(nn.Sequential(*[Residual() for _ in range(count)])))
        return sum(isinstance(m, ChannelsLast | AsTrained) for m in chain.modules())

    assert copies(LEAST_GAINING // 2) == 0  # of two layers each
    assert copies(LEAST_GAINING) == 2  # one in, one out


def test_an_image_is_copied_once_for_all_that_read_it():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.pool = nn.Conv2d(3, 32, 3), nn.MaxPool2d(2)
            self.conv, self.norm = QConv2d(32, 32, 3, 1, 1, bias=False, **SIGN), nn.BatchNorm2d(32)
            self.end = nn.Conv2d(32, 8, 1)

        def forward(self, x):
            x = self.stem(x)
            a, b = self.pool(x), self.pool(torch.relu(x))
            y = self.norm(self.conv(a)) + b
            return self.end(y) + self.end(y).mean(), y.mean((2, 3))

    model = shaken(Twice())
    converted = convert(model)
    kinds = [type(m) for m in converted.modules()]
    assert kinds.count(ChannelsLast) == 1
    assert kinds.count(AsTrained) == 1
    for layout in (USUAL, LAST):
        x = laid_out((2, 3, 20, 22), layout)
        with torch.no_grad():
            for y, expected in zip(converted(x), model(x), strict=True):
                assert torch.equal(y, expected)
                assert y.stride() == expected.stride()


@LAYOUTS
@pytest.mark.parametrize(
    "shape", [(2, 3, 4, 5), (1, 1, 4, 5), (3, 1, 4, 5), (2, 6, 1, 1), (1, 6, 1, 1), (2, 6, 1, 5)]
)
def test_torch_and_as_trained_agree_on_strides(shape, layout):
    x = torch.empty(shape, memory_format=layout)
    conv = nn.Conv2d(shape[1], 4, 1)
    assert says_channels_last(x) == (layout is LAST)
    y = torch.randn(2, 7, 3, 4)
    assert AsTrained()(y, x).stride() == torch.empty(y.shape, memory_format=layout).stride()
    y = torch.randn(5, 7, 1, 1)
    assert AsTrained()(y, x).stride() == torch.empty(y.shape, memory_format=layout).stride()
    with torch.no_grad():
        out = conv(x)
    assert AsTrained()(out.clone(), x).stride() == out.stride()


def test_the_layout_outlives_copies_and_pickles():
    class Chain(nn.Module):
        """Bits go from the first layer to the second, whose numbers are pooled."""

        def __init__(self):
            super().__init__()
            self.first, self.second = (QConv2d(64, 64, 3, bias=False, **SIGN) for _ in range(2))
            self.pool, self.end = nn.MaxPool2d(2), nn.Conv2d(64, 4, 1)

        def forward(self, x):
            return self.end(self.pool(self.second(self.first(x))))

    model = shaken(Chain())
    converted = convert(model)
    assert converted.second.packed_input
    assert not converted.first.channels_last
    x = integers((1, 64, 12, 12))
    for net in (converted, copy.deepcopy(converted), pickle.loads(pickle.dumps(converted))):
        assert net.second.channels_last
        with torch.no_grad():
            assert torch.equal(net(x), model(x))
