"""Single pieces of ResNet-18, one image: what lies between its convolutions, and its 3 x 3."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import lowbit
from _bench.bench import Bench, maps
from _bench.figure import Figure
from _bench.int8 import layers, legacy
from _bench.int8.quality import same_integers
from _bench.race import Runner
from lowbit.nn import quantized
from lowbit.nn.quantized import functional
from lowbit.qtensor import QTensor

Piece = tuple[layers.Pair, Runner]


def run(bench: Bench) -> Iterator[Figure]:
    for case, make in _pieces(bench).items():
        torch.manual_seed(0)
        pair, real = make()
        done = bench.race({**pair.runners(), "float": real})
        times = done.microseconds()
        value, _, note = layers.no_slower(bench, done)
        yield Figure(case, value, "x legacy", note=note, times=times)
        yield Figure(case, done.ratio("float", layers.LOWBIT), "x float", times=times)


def _pieces(bench: Bench) -> dict[str, Callable[[], Piece]]:
    small = bench.quick
    image, wide = ((3, 8), (8, 8)) if small else ((3, 224), (64, 112))
    block, last = ((8, 6), (16, 3)) if small else ((64, 56), (512, 7))
    pieces: dict[str, Callable[[], Piece]] = {
        f"Quantize {_shown(*image)}": lambda: _quantize(_drawn(*image)),
        f"Quantize {_shown(*block)}": lambda: _quantize(_drawn(*block)),
        f"DeQuantize {_shown(*block)}": lambda: _dequantize(_drawn(*block)),
        f"max_pool2d {_shown(*wide)}": lambda: _max_pool(_drawn(*wide)),
        f"add_relu {_shown(*block)}": lambda: _add_relu(_drawn(*block), _drawn(*block)),
        f"global average pool {_shown(*last)}": lambda: _average(_drawn(*last)),
    }
    for name, (channels, size) in maps(bench).items():
        pieces[f"3 x 3, {name}"] = lambda c=channels, s=size: _conv(_drawn(c, s))
        pieces[f"3 x 3 + residual, {name}"] = lambda c=channels, s=size: _conv_add(_drawn(c, s))
    return pieces


def _shown(channels: int, size: int) -> str:
    return f"{channels}x{size}x{size}"


def _drawn(channels: int, size: int) -> Tensor:
    return torch.randn(1, channels, size, size).contiguous(memory_format=torch.channels_last)


def _pair(
    name: str, ours: Callable[[Any], QTensor], theirs: Callable[[Any], Any] | None, x: QTensor
) -> layers.Pair:
    """Two functions of one quantized tensor that give the same integers."""
    if theirs is None or legacy.reason() is not None:
        return layers.Pair(lambda: ours(x), None)
    their_x = legacy.tensor(x)
    with torch.inference_mode():
        same_integers(ours(x).int_repr(), theirs(their_x).int_repr(), name)
    return layers.Pair(lambda: ours(x), lambda: theirs(their_x))


def _quantize(x: Tensor) -> Piece:
    """Beside a copy in float32."""
    scale, zero_point = layers.qparams(x)
    ours, theirs = quantized.Quantize(scale, zero_point, "uint8"), None
    if legacy.reason() is None:
        module = legacy.torch_ao().static.Quantize(scale, zero_point, torch.quint8)
        same_integers(ours(x).int_repr(), module(x).int_repr(), "Quantize")

        def theirs() -> Tensor:
            return module(x)

    return layers.Pair(lambda: ours(x), theirs), lambda: x.clone()


def _dequantize(x: Tensor) -> Piece:
    """Beside a copy in float32."""
    codes, ours, theirs = layers.quantized_input(x), quantized.DeQuantize(), None
    if legacy.reason() is None:
        module, their_codes = legacy.torch_ao().static.DeQuantize(), legacy.tensor(codes)
        torch.testing.assert_close(ours(codes), module(their_codes))

        def theirs() -> Tensor:
            return module(their_codes)

    return layers.Pair(lambda: ours(codes), theirs), lambda: x.clone()


def _max_pool(x: Tensor) -> Piece:
    window = (3, 2, 1)
    ours, real = quantized.MaxPool2d(*window), nn.MaxPool2d(*window)
    pair = _pair("max_pool2d", ours, real, layers.quantized_input(x))
    return pair, lambda: real(x)


def _average(x: Tensor) -> Piece:
    pair = _pair(
        "adaptive_avg_pool2d",
        lambda q: functional.adaptive_avg_pool2d(q, 1),
        lambda q: F.adaptive_avg_pool2d(q, 1),
        layers.quantized_input(x),
    )
    return pair, lambda: F.adaptive_avg_pool2d(x, 1)


def _add_relu(x: Tensor, y: Tensor) -> Piece:
    ours, theirs = quantized.QFunctional(), None
    ours.scale, ours.zero_point = layers.qparams(F.relu(x + y))
    other = layers.quantized_input(y)
    if legacy.reason() is None:
        module, their_other = legacy.torch_ao().static.QFunctional(), legacy.tensor(other)
        module.scale, module.zero_point = ours.scale, ours.zero_point

        def theirs(q: Tensor) -> Tensor:
            return module.add_relu(q, their_other)

    q = layers.quantized_input(x)
    return _pair("add_relu", lambda q: ours.add_relu(q, other), theirs, q), lambda: F.relu(x + y)


def _layer(x: Tensor) -> tuple[nn.Conv2d, dict[str, Any]]:
    channels = x.shape[1]
    arguments = {
        "in_channels": channels,
        "out_channels": channels,
        "kernel_size": 3,
        "padding": 1,
    }
    return nn.Conv2d(**arguments).to(memory_format=torch.channels_last), arguments


def _conv(x: Tensor) -> Piece:
    """Beside float32 prepacked by oneDNN."""
    layer, arguments = _layer(x)
    return layers.static(layer, "Conv2d", x, arguments), layers.prepacked(layer, x)


def _conv_add(x: Tensor) -> Piece:
    """ConvAddReLU2d of x and x beside the legacy convolution and add_relu; float in torch's."""
    layer, arguments = _layer(x)
    ours = quantized.ConvAddReLU2d(**arguments)
    weight = layer.weight.detach()
    scales = weight.flatten(1).abs().amax(1).double() / 127
    zeros = torch.zeros(len(scales), dtype=torch.int64)
    codes = lowbit.quantize_per_channel(weight, scales, zeros, 0, "int8")
    ours.set_weight_bias(codes, layer.bias.detach())
    q, theirs = layers.quantized_input(x), None
    with torch.inference_mode():
        y = F.relu(layer(x) + x)
        ours.scale, ours.zero_point = layers.qparams(y)
        found = ours(q, q).dequantize()
        layers.near(found, y, layers.LEAST_DB, "lowbit's ConvAddReLU2d")
    if legacy.reason() is None:
        conv, add = legacy.weighted(ours, "Conv2d", **arguments), _legacy_add(ours)
        conv.scale, conv.zero_point = layers.qparams(layer(x).detach())
        their_q = legacy.tensor(q)
        with torch.inference_mode():  # rounded twice, so not the same integers
            other = add.add_relu(conv(their_q), their_q).dequantize()
            layers.near(other, y, layers.LEAST_DB, "the legacy convolution and sum")

        def theirs() -> Tensor:
            return add.add_relu(conv(their_q), their_q)

    return layers.Pair(lambda: ours(q, q), theirs), lambda: F.relu(layer(x) + x)


def _legacy_add(ours: Any) -> Any:
    add = legacy.torch_ao().static.QFunctional()
    add.scale, add.zero_point = ours.scale, ours.zero_point
    return add
