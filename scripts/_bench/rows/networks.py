"""Whole networks, one image of 224 x 224, channels last: the converted one beside its float twin.

Goals are those of ``fast_floats``; the exact conversion, which is the default, stands beside it.
"""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from bench_training import float_twin
from torch import Tensor, nn

import lowbit
from _bench.bench import Bench
from _bench.figure import Figure
from lowbit.models import QuickNet, ResNet18
from lowbit.nn import QuantizedLayer

RESNET: dict[str, Any] = {
    "num_classes": 1000,
    "stem": "imagenet",
    "shortcut": "conv",
    "downsample": "pool_float",
}


def quicknet() -> nn.Module:
    sign = {"name": "ste_sign", "clip": 1.25}
    return QuickNet(num_classes=1000, input_quantization=sign, weight_quantization=sign)


def bireal() -> nn.Module:
    """Bi-Real Net's quantizers: weights have a scale for each channel."""
    return ResNet18(**RESNET, input_quantization="approx_sign", weight_quantization="bireal_weight")


def resnet_e() -> nn.Module:
    """ResNetE: weights have no scale."""
    return ResNet18(**RESNET, input_quantization="ste_sign", weight_quantization="ste_sign")


def small() -> nn.Module:
    return QuickNet(channels=(64, 64), blocks=(1, 1), input_quantization="sign",
                    weight_quantization="sign")  # fmt: skip


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "QuickNet": quicknet,
    "Bi-Real-18": bireal,
    "ResNetE-18": resnet_e,
}


def settled(model: nn.Module, size: int) -> nn.Module:
    """In eval mode, with batch norms that have seen inputs."""
    with torch.no_grad():
        for _ in range(3):
            model(torch.randn(4, 3, size, size))
    return model.eval()


def check(model: nn.Module, converted: nn.Module, images: Tensor) -> None:
    """Nothing is left unpacked; the same scores up to float rounding, the same best classes."""
    left = [
        name for name, module in converted.named_modules() if isinstance(module, QuantizedLayer)
    ]
    if left:
        raise AssertionError(f"layers that are not packed: {', '.join(left)}")
    with torch.inference_mode():
        expected, ours = model(images), converted(images)
    torch.testing.assert_close(ours, expected, rtol=1e-3, atol=1e-3)
    if not torch.equal(ours.argmax(1), expected.argmax(1)):
        raise AssertionError("the converted network chooses other classes than the trained one")


def packed_seconds(converted: nn.Module, x: Tensor, runs: int) -> float:
    """The time that one run spends in packed modules; the median of some runs."""
    starts: list[float] = []
    spent: list[float] = []

    def enter(*_: object) -> None:
        starts.append(time.perf_counter())

    def leave(*_: object) -> None:
        spent[-1] += time.perf_counter() - starts.pop()

    hooks = []
    for module in converted.modules():
        if type(module).__name__.startswith("Packed"):
            hooks += [module.register_forward_pre_hook(enter), module.register_forward_hook(leave)]
    with torch.inference_mode():
        for _ in range(runs):
            spent.append(0.0)
            converted(x)
    for hook in hooks:
        hook.remove()
    return statistics.median(spent)


def run(bench: Bench) -> Iterator[Figure]:
    size = 32 if bench.quick else 224
    for name, make in ({"small": small} if bench.quick else NETWORKS).items():
        torch.manual_seed(0)
        model = settled(make(), size)
        twin = float_twin(copy.deepcopy(model)).eval().to(memory_format=torch.channels_last)
        last = torch.randn(1, 3, size, size).contiguous(memory_format=torch.channels_last)
        four = torch.randn(4, 3, size, size).contiguous(memory_format=torch.channels_last)
        exact = lowbit.convert(model, to="packed").model
        fast = lowbit.convert(model, to="packed", fast_floats=True).model
        for images in (last, four):
            check(model, exact, images)
            check(model, fast, images)
        done = bench.race(
            {
                "lowbit": lambda net=exact, x=last: net(x),
                "lowbit fast_floats": lambda net=fast, x=last: net(x),
                "torch": lambda net=twin, x=last: net(x),
            }
        )
        for ours, converted in (("lowbit fast_floats", fast), ("lowbit", exact)):
            inside = 1e3 * packed_seconds(converted, last, 3 if bench.quick else 31)
            note = f"{inside:.2f} ms in packed layers"
            case = f"{name}, {'fast_floats' if converted is fast else 'exact'}"
            over, taken = done.ratio("torch", ours), 1e3 * done.median(ours)
            if name == "QuickNet":
                figure = Figure(case, taken, "ms", smaller=True, note=f"{over:.1f}x torch, {note}")
                goals = 2.0, 1.3
            else:
                figure = Figure(case, over, "x torch", note=f"{taken:.2f} ms, {note}")
                goals = 6.0, 8.0
            if converted is fast:
                figure.must, figure.moonshot = (bench.goal(goal) for goal in goals)
            figure.times = done.microseconds()
            yield figure
