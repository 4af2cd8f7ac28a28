"""Functions of torch, and float layers, that take a QTensor."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import lowbit
from lowbit.functional.int8 import activations
from lowbit.qtensor import QTensor


@pytest.fixture
def q():
    return lowbit.quantize_per_tensor(torch.randn(2, 4, 6, 8), 0.05, 120, "quint8")


@pytest.fixture
def channels():
    args = (torch.rand(4) / 10 + 0.01, torch.zeros(4).long(), 0, "qint8")
    return lowbit.quantize_per_channel(torch.randn(4, 6), *args)


def shown(function):
    """A name that is the same in every process; None numbers it."""
    return repr(function) if isinstance(function, nn.Module) else None


@pytest.mark.parametrize(
    "function",
    [
        lambda x: torch.flatten(x, 1),
        lambda x: torch.reshape(x, (2, -1)),
        lambda x: torch.permute(x, (0, 2, 3, 1)),
        lambda x: torch.transpose(x, 1, 2),
        lambda x: torch.movedim(x, 1, -1),
        lambda x: torch.unsqueeze(x, 1),
        lambda x: torch.squeeze(x),
        lambda x: torch.flip(x, [2]),
        lambda x: torch.narrow(x, 1, 1, 2),
        lambda x: torch.index_select(x, 1, torch.tensor([2, 0])),
        lambda x: torch.chunk(x, 2, 1)[1],
        lambda x: torch.split(x, 3, 1)[1],
        lambda x: torch.unbind(x)[1],
        lambda x: torch.clone(x),
        lambda x: torch.cat([x, x], 1),
        lambda x: torch.concat((x, x), -1),
        lambda x: torch.stack([x, x], 1),
        lambda x: torch.stack([x, x], -1),
        nn.Flatten(),
        nn.Identity(),
        nn.ReLU(),
        nn.ReLU(inplace=True),
        torch.relu,
        nn.MaxPool2d(3, 2, 1),
        nn.MaxPool2d(2, ceil_mode=True),
        nn.Dropout(0.5).eval(),
        nn.Dropout2d(0.5).eval(),
        nn.Upsample(scale_factor=2),
    ],
    ids=shown,
)
def test_the_real_numbers_are_those_of_the_real_tensor(q, function):
    found = function(q)
    assert isinstance(found, QTensor)
    assert (found.q_scale(), found.q_zero_point()) == (0.05, 120)
    assert torch.equal(found.dequantize(), function(q.dequantize()))


@pytest.mark.parametrize(
    "function",
    [
        nn.ReLU6(),
        F.relu6,
        nn.Hardtanh(-1, 2),
        lambda x: torch.clamp(x, -0.5, 0.5),
        nn.LeakyReLU(0.1),
        nn.AvgPool2d(3, 2, 1),
        nn.AdaptiveAvgPool2d((3, 2)),
        nn.Upsample(scale_factor=1.5, mode="bilinear"),
        lambda x: F.interpolate(x, (9, 9), mode="bilinear", align_corners=True),
        nn.Sigmoid(),
        nn.Hardsigmoid(),
        nn.Tanh(),
    ],
    ids=shown,
)
def test_the_real_numbers_are_within_half_a_step_of_those_of_the_real_tensor(q, function):
    found = function(q)
    assert isinstance(found, QTensor)
    exact = function(q.dequantize())
    # The integers of sigmoid and tanh end just below 1.
    limit = found.q_scale() * (255 - found.q_zero_point())
    error = (found.dequantize() - exact.clamp_max(limit)).abs().max()
    assert error <= found.q_scale() * 0.51


@pytest.mark.parametrize("axes", [1, 3])
def test_pooling_has_one_to_three_axes(axes):
    x = lowbit.quantize_per_tensor(torch.randn(2, 3, 8, 8, 8), 0.05, 120, "quint8")
    x = x if axes == 3 else x[..., 0, 0]
    pools = {
        1: (nn.MaxPool1d(2), nn.AvgPool1d(2), nn.AdaptiveAvgPool1d(3)),
        3: (nn.MaxPool3d(2), nn.AvgPool3d(2), nn.AdaptiveAvgPool3d(3)),
    }[axes]
    for module in pools:
        error = (module(x).dequantize() - module(x.dequantize())).abs().max()
        assert error <= 0.05 * 0.51


def test_sigmoid_takes_the_whole_range():
    x = lowbit.quantize_per_tensor(torch.tensor([-100.0, 100.0]), 1.0, 0, "qint8")
    assert torch.sigmoid(x).values.tolist() == [-128, 127]
    assert activations.sigmoid_qparams(torch.int8) == (1 / 256, -128)
    assert torch.tanh(x).values.tolist() == [-128, 127]
    assert activations.tanh_qparams(torch.uint8) == (2 / 256, 128)


def test_facts_are_asked_by_functions_too(q, channels):
    assert torch.equal(torch.dequantize(q), q.dequantize())
    assert torch.numel(q) == q.numel()
    if hasattr(torch, "q_scale"):
        assert torch.q_scale(q) == 0.05
        assert torch.int_repr(q) is q.values
        assert torch.q_per_channel_axis(channels) == 0


def test_equal_and_close_and_comparisons(q):
    other = QTensor(q.values, 0.05001, 120)
    assert torch.equal(q, q.clone())
    assert not torch.equal(q, other)
    assert torch.allclose(q, other, rtol=1e-3)
    assert not torch.allclose(q, other, rtol=1e-5)
    assert torch.equal(torch.eq(q, 0), q.values == 120)
    assert torch.equal(torch.zeros(8) < q, q.values > 120)


def test_cat_along_the_channels_keeps_each_scale(channels):
    other = QTensor(channels.values, channels.scale * 2, channels.zero_point, 0)
    both = torch.cat([channels, other])
    expected = torch.cat([channels.dequantize(), other.dequantize()])
    assert torch.equal(both.dequantize(), expected)
    assert torch.equal(torch.cat([channels, channels], 1).scale, channels.scale)


@pytest.mark.parametrize(
    "other",
    [
        lambda q: QTensor(q.values, 0.06, 120),
        lambda q: QTensor(q.values, 0.05, 121),
        lambda q: QTensor(q.values.to(torch.int32), 0.05, 120),
    ],
)
def test_cat_of_several_scales_is_refused(q, other):
    for function in (torch.cat, torch.stack):
        with pytest.raises(ValueError, match="several scales, zero points or dtypes"):
            function([q, other(q)])


def test_cat_with_a_real_tensor_is_refused(q):
    for tensors in ([q, q.dequantize()], [q.dequantize(), q]):
        with pytest.raises(TypeError, match="cat of a QTensor and a Tensor"):
            torch.cat(tensors)


@pytest.mark.parametrize(
    "function",
    [
        lambda q: torch.add(q, q),
        lambda q: F.linear(q, torch.zeros(3, 8)),
        nn.Conv2d(4, 4, 3),
        nn.Softmax(1),
        nn.Hardswish(),
    ],
)
def test_what_needs_a_new_scale_is_refused_with_the_way_out(q, function):
    with pytest.raises(TypeError, match=r"need a scale and a zero point\. lowbit.nn.quantized"):
        function(q)


@pytest.mark.parametrize(
    "calculate",
    [
        lambda q: q + q,
        lambda q: torch.zeros(8) + q,
        lambda q: 2 * q,
        lambda q: q - 1,
        lambda q: q / 2,
        lambda q: q @ q,
    ],
)
def test_operators_are_refused_with_the_way_out(q, calculate):
    with pytest.raises(TypeError, match=r"QFunctional of lowbit\.nn.quantized have them"):
        calculate(q)


def test_channels_are_not_pooled_or_rectified(channels):
    for function in (F.relu, lambda x: F.max_pool1d(x, 2), lambda x: F.avg_pool1d(x, 2)):
        with pytest.raises(ValueError, match="for each channel"):
            function(channels)


def test_what_has_no_meaning_is_refused(q):
    with pytest.raises(RuntimeError, match="while training"):
        nn.Dropout()(q)
    with pytest.raises(NotImplementedError, match="return_indices"):
        F.max_pool2d(q, 2, return_indices=True)
    with pytest.raises(NotImplementedError, match="antialias"):
        F.interpolate(q, 3, mode="bilinear", antialias=True)
